/* thumbnail.c - see thumbnail.h.  Decoding and shrinking are the runtime's; only the JPEG is made here. */
#include "tools/report/thumbnail.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

#include "runtime/vision/image.h"

enum { QUALITY = 75 };

/* ---- JPEG ------------------------------------------------------------------------------------------------------------ */

typedef struct {
    struct jpeg_error_mgr base; /* first: libjpeg knows this part */
    jmp_buf               back;
    char                  text[JMSG_LENGTH_MAX];
} jpeg_failure;

static void jpeg_failed(j_common_ptr j)
{
    jpeg_failure *f = (jpeg_failure *)j->err;
    j->err->format_message(j, f->text);
    longjmp(f->back, 1);
}

/* *bytes is malloc'd by libjpeg. */
static nb_status encode(unsigned char **bytes, unsigned long *n, const nb_image *image, const char *name, nb_error *err)
{
    struct jpeg_compress_struct c;
    jpeg_failure                failure;
    *bytes = NULL;
    *n = 0;
    c.err = jpeg_std_error(&failure.base);
    failure.base.error_exit = jpeg_failed;
    if (setjmp(failure.back)) {
        jpeg_destroy_compress(&c);
        return nb_fail(err, NB_ERR_MEMORY, "%s: no thumbnail: %s", name, failure.text);
    }
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, bytes, n);
    c.image_width = (JDIMENSION)image->width;
    c.image_height = (JDIMENSION)image->height;
    c.input_components = 3;
    c.in_color_space = JCS_RGB;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, QUALITY, TRUE);
    c.dct_method = JDCT_ISLOW; /* the exact one: the same bytes everywhere */
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < c.image_height) {
        JSAMPROW row = image->rgb + (size_t)c.next_scanline * (size_t)image->width * 3;
        jpeg_write_scanlines(&c, &row, 1);
    }
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    return NB_OK;
}

/* ---- text ------------------------------------------------------------------------------------------------------------ */

static void add_base64(nb_buf *out, const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        size_t   left = n - i < 3 ? n - i : 3;
        unsigned v = (unsigned)p[i] << 16 | (left > 1 ? (unsigned)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        char     four[4] = { digits[v >> 18], digits[v >> 12 & 63], digits[v >> 6 & 63], digits[v & 63] };
        for (size_t k = left + 1; k < 4; k++) four[k] = '=';
        nb_buf_add(out, four, 4);
    }
}

/* Larger sides become NB_THUMBNAIL_SIDE; a thin strip keeps one pixel. */
static nb_status shrink(nb_image *image, nb_error *err)
{
    int side = image->width > image->height ? image->width : image->height;
    if (side <= NB_THUMBNAIL_SIDE) return NB_OK;
    int      w = (int)((int64_t)image->width * NB_THUMBNAIL_SIDE / side), h = (int)((int64_t)image->height * NB_THUMBNAIL_SIDE / side);
    nb_image small;
    NB_TRY(nb_image_resize(&small, image, w ? w : 1, h ? h : 1, err));
    nb_image_free(image);
    *image = small;
    return NB_OK;
}

nb_status nb_thumbnail_of(nb_buf *out, const void *bytes, size_t n, const char *name, nb_error *err)
{
    nb_image       image;
    unsigned char *jpeg = NULL;
    unsigned long  size = 0;
    NB_TRY(nb_image_decode(&image, bytes, n, name, NULL, err));
    nb_status status = shrink(&image, err);
    if (!status) status = encode(&jpeg, &size, &image, name, err);
    if (!status) {
        nb_buf_str(out, "data:image/jpeg;base64,");
        add_base64(out, jpeg, size);
        status = nb_buf_status(out, "a thumbnail", err);
    }
    free(jpeg);
    nb_image_free(&image);
    return status;
}

nb_status nb_thumbnail(nb_buf *out, const char *reference, const nb_media_options *media, nb_error *err)
{
    nb_buf bytes = { 0 };
    char   name[160];
    nb_media_name(name, reference);
    NB_TRY(nb_media_read(&bytes, reference, media, err));
    nb_status status = nb_thumbnail_of(out, bytes.data, bytes.size, name, err);
    nb_buf_free(&bytes);
    return status;
}
