/* data_picture.c - see data_picture.h. */
#include "tools/data_picture.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "runtime/vision/image.h"

enum { HEAD = 128 << 10, TAIL = 12, MOST_PIXELS = 178956970 }; /* the decoder's own limit */

static uint32_t le16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t le24(const uint8_t *p) { return le16(p) | (uint32_t)p[2] << 16; }
static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }
static uint32_t le32(const uint8_t *p) { return le16(p) | le16(p + 2) << 16; }

/* The frame header SOFn holds the size; segments before it are passed over by their length. */
static bool jpeg_header(const uint8_t *p, size_t n, int64_t *width, int64_t *height)
{
    for (size_t at = 2; n >= 9 && at < n - 9;) {
        if (p[at] != 0xff) return false;
        uint8_t marker = p[at + 1];
        if (marker == 0xff || marker == 0x01 || (marker >= 0xd0 && marker <= 0xd8)) {
            at += marker == 0xff ? 1 : 2;
            continue;
        }
        if (marker >= 0xc0 && marker <= 0xcf && marker != 0xc4 && marker != 0xc8 && marker != 0xcc) {
            *height = be16(p + at + 5);
            *width = be16(p + at + 7);
            return true;
        }
        if (marker == 0xd9 || marker == 0xda) return false;
        at += 2 + (size_t)be16(p + at + 2);
    }
    return false;
}

static bool webp_header(const uint8_t *p, size_t n, int64_t *width, int64_t *height)
{
    if (n < 30) return false;
    if (!memcmp(p + 12, "VP8X", 4)) {
        *width = 1 + le24(p + 24);
        *height = 1 + le24(p + 27);
        return !(p[20] & 2); /* animated: the decoder refuses it */
    }
    if (!memcmp(p + 12, "VP8L", 4) && p[20] == 0x2f) {
        uint32_t bits = le32(p + 21);
        *width = 1 + (bits & 0x3fff);
        *height = 1 + (bits >> 14 & 0x3fff);
        return true;
    }
    if (memcmp(p + 12, "VP8 ", 4) || memcmp(p + 23, "\x9d\x01\x2a", 3)) return false;
    *width = le16(p + 26) & 0x3fff;
    *height = le16(p + 28) & 0x3fff;
    return true;
}

bool nb_picture_header(const uint8_t *p, size_t n, int64_t *width, int64_t *height)
{
    if (n < 26) return false;
    if (!memcmp(p, "\xff\xd8\xff", 3)) return jpeg_header(p, n, width, height);
    if (!memcmp(p, "\x89PNG\r\n\x1a\n", 8) && !memcmp(p + 12, "IHDR", 4)) {
        *width = be32(p + 16);
        *height = be32(p + 20);
        return true;
    }
    if (!memcmp(p, "GIF87a", 6) || !memcmp(p, "GIF89a", 6)) {
        *width = le16(p + 6);
        *height = le16(p + 8);
        return true;
    }
    if (!memcmp(p, "RIFF", 4) && !memcmp(p + 8, "WEBP", 4)) return webp_header(p, n, width, height);
    return false; /* BMP files are few: the decoder has them */
}

/* Does the file end as a whole one of its kind does?  tail: its last 12 bytes; head: its first 12. */
static bool ends_well(const uint8_t *head, const uint8_t *tail, uint64_t size)
{
    switch (head[0]) {
    case 0xff: return tail[TAIL - 2] == 0xff && tail[TAIL - 1] == 0xd9;
    case 0x89: return !memcmp(tail + 4, "IEND\xae\x42\x60\x82", 8);
    case 'G': return tail[TAIL - 1] == 0x3b;
    default: return (uint64_t)le32(head + 4) + 8 <= size; /* RIFF */
    }
}

static bool is_remote(const char *reference)
{
    return !strncasecmp(reference, "http://", 7) || !strncasecmp(reference, "https://", 8);
}

static nb_status decode(nb_picture *out, const char *reference, const nb_media_options *media, nb_error *err)
{
    nb_buf   bytes = {0};
    nb_image image = {0};
    char     name[160];
    nb_media_name(name, reference);
    nb_status status = nb_media_read(&bytes, reference, media, err);
    if (status == NB_OK) status = nb_image_decode(&image, bytes.data, bytes.size, name, NULL, err);
    if (status == NB_OK) *out = (nb_picture){image.width, image.height, true};
    nb_image_free(&image);
    nb_buf_free(&bytes);
    return status;
}

/* Size from the header of a local file; false when only the decoder can tell. */
static bool look_at_file(nb_picture *out, const char *path, size_t max_bytes)
{
    uint64_t size;
    int64_t  width = 0, height = 0;
    uint8_t *head = malloc(HEAD), tail[TAIL];
    int      fd = -1;
    bool     good = head && nb_open_regular(&fd, &size, path, NULL) == NB_OK && size > TAIL && size <= max_bytes;
    size_t   n = good && size < HEAD ? (size_t)size : HEAD;
    good = good && nb_read_at(fd, head, n, 0, path, NULL) == NB_OK &&
           nb_read_at(fd, tail, TAIL, size - TAIL, path, NULL) == NB_OK &&
           nb_picture_header(head, n, &width, &height) && ends_well(head, tail, size) && width > 0 && height > 0 &&
           width <= INT32_MAX && height <= INT32_MAX && width <= MOST_PIXELS / height;
    if (good) *out = (nb_picture){(int)width, (int)height, false};
    if (fd >= 0) close(fd);
    free(head);
    return good;
}

nb_status nb_picture_look(nb_picture *out, const char *reference, const nb_media_options *media, bool deep, nb_error *err)
{
    *out = (nb_picture){0};
    if (is_remote(reference) && !deep && !media->offline) return NB_OK;
    if (deep || is_remote(reference) || !strncasecmp(reference, "data:", 5)) return decode(out, reference, media, err);
    const char *path = !strncasecmp(reference, "file://", 7) ? reference + 7 : reference;
    char       *joined = media->root ? nb_path_join(media->root, path) : nb_strdup(path);
    if (!joined) return nb_fail(err, NB_ERR_MEMORY, "no memory for a path of %zu bytes", strlen(path));
    bool good = look_at_file(out, joined, media->max_bytes ? media->max_bytes : 64 << 20);
    free(joined);
    return good ? NB_OK : decode(out, reference, media, err);
}
