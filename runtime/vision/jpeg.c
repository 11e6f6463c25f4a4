/* jpeg.c - JPEG through libjpeg-turbo, with Pillow's choices.
 *
 * Pixels have to equal Pillow's, so every decoding option stays at the library's default (integer slow DCT, fancy
 * upsampling) and four-component files go through Pillow's own arithmetic: samples are taken as Adobe's inverted
 * ones, whatever the file says, and turned to RGB without a colour profile.
 *
 * libjpeg repairs what it can and only warns.  A warning that means lost picture data is an error here: a model would
 * otherwise read the grey that fills the rest.  Harmless ones (stray bytes between markers, odd JFIF versions) pass, as
 * they do in Pillow.  Errors leave through longjmp, which is why all state lives in one struct that outlives the jump.
 */
#include "runtime/vision/decoders.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>
/* after it, because the codes depend on how the library was configured */
#include <jerror.h>

enum {
    MAX_SCANS = 200,        /* a progressive file of 10,000 scans decodes for hours; encoders write about ten */
    MAX_MEMORY = 512 << 20, /* for libjpeg's own arrays: the coefficients of a progressive file (2 bytes each) */
};

typedef struct {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr         errors;
    struct jpeg_progress_mgr      progress;
    jmp_buf                       leave;
    const nb_encoded             *in;
    nb_error                     *err;
    nb_status                     status;
    uint8_t                      *line; /* one row of CMYK samples */
} jpeg_reader;

static void on_error(j_common_ptr info)
{
    jpeg_reader *r = info->client_data;
    char         text[JMSG_LENGTH_MAX];
    info->err->format_message(info, text);
    switch (info->err->msg_code) {
    case JERR_BAD_PRECISION:
    case JERR_SOF_UNSUPPORTED:
    case JERR_ARITH_NOTIMPL:
    case JERR_CONVERSION_NOTIMPL:
        r->status = nb_fail(r->err, NB_ERR_UNSUPPORTED, "%s: this kind of JPEG is not supported: %s", r->in->name, text);
        break;
    case JERR_OUT_OF_MEMORY:
    case JERR_NO_BACKING_STORE:
        r->status = nb_fail(r->err, NB_ERR_MEMORY, "%s: decoding this JPEG needs more than %d MiB of working memory",
                            r->in->name, MAX_MEMORY >> 20);
        break;
    default: r->status = nb_fail(r->err, NB_ERR_INPUT, "%s: damaged JPEG: %s", r->in->name, text);
    }
    longjmp(r->leave, 1);
}

static void on_message(j_common_ptr info, int level)
{
    if (level >= 0) return; /* a trace */
    switch (info->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC: on_error(info);
    }
}

static void print_nothing(j_common_ptr info) { (void)info; }

static void on_progress(j_common_ptr info)
{
    jpeg_reader *r = info->client_data;
    if (r->jpeg.input_scan_number <= MAX_SCANS) return;
    r->status = nb_fail(r->err, NB_ERR_INPUT, "%s: a JPEG of more than %d scans is refused", r->in->name, MAX_SCANS);
    longjmp(r->leave, 1);
}

/* Pillow's cmyk2rgb on inverted samples.  The library's sample is 255 - C, so the ink is 255 - sample. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, int width)
{
    for (int x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        int white = cmyk[3]; /* 255 - K */
        for (int c = 0; c < 3; c++) {
            int v = white - (int)nb_mul255(255 - cmyk[c], white);
            rgb[c] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

/* Every 8x8 block of the largest component costs at least one bit when it is Huffman coded. */
static uint64_t least_bytes(const struct jpeg_decompress_struct *jpeg)
{
    if (jpeg->arith_code) return 0;
    return ((uint64_t)jpeg->image_width + 7) / 8 * (((uint64_t)jpeg->image_height + 7) / 8) / 8;
}

static nb_status read_pixels(jpeg_reader *r, nb_image *out)
{
    struct jpeg_decompress_struct *jpeg = &r->jpeg;
    if (jpeg->num_components == 2)
        return nb_fail(r->err, NB_ERR_UNSUPPORTED, "%s: a JPEG of two components is not supported", r->in->name);
    NB_TRY(nb_image_claim(out, r->in, jpeg->image_width, jpeg->image_height, least_bytes(jpeg), r->err));
    bool ink = jpeg->num_components == 4;
    jpeg->out_color_space = ink ? JCS_CMYK : JCS_RGB; /* grey to RGB replicates */
    if (ink) NB_TRY(nb_alloc(&r->line, (size_t)out->width, 4, "a row of JPEG samples", r->err));
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *row = out->rgb + (size_t)jpeg->output_scanline * out->width * 3;
        JSAMPROW samples = ink ? r->line : row;
        jpeg_read_scanlines(jpeg, &samples, 1);
        if (ink) cmyk_to_rgb(row, r->line, out->width);
    }
    jpeg_finish_decompress(jpeg); /* reads on to the end marker, so that a missing one is noticed */
    return NB_OK;
}

nb_status nb_decode_jpeg(nb_image *out, const nb_encoded *in, nb_error *err)
{
    jpeg_reader *r;
    NB_TRY(nb_alloc(&r, 1, sizeof *r, "the JPEG decoder", err));
    r->in = in;
    r->err = err;
    r->jpeg.err = jpeg_std_error(&r->errors);
    r->errors.error_exit = on_error;
    r->errors.emit_message = on_message;
    r->errors.output_message = print_nothing;
    r->jpeg.client_data = r;
    if (setjmp(r->leave) == 0) {
        jpeg_create_decompress(&r->jpeg);
        r->jpeg.mem->max_memory_to_use = MAX_MEMORY;
        r->progress.progress_monitor = on_progress;
        r->jpeg.progress = &r->progress;
        jpeg_mem_src(&r->jpeg, in->bytes, in->n);
        jpeg_read_header(&r->jpeg, TRUE);
        r->status = read_pixels(r, out);
    }
    nb_status status = r->status;
    jpeg_destroy_decompress(&r->jpeg);
    free(r->line);
    free(r);
    return status;
}
