/* unit_vision.h - for the tests of runtime/vision: SHA-256, FNV, the generated picture of the oracle, its fixtures. */
#ifndef NB_UNIT_VISION_H
#define NB_UNIT_VISION_H

#include "unit.h"

#include "runtime/io/json.h"
#include "runtime/vision/image.h"
#include "runtime/vision/media.h"

static inline uint32_t unit_rotate(uint32_t v, int n) { return v >> n | v << (32 - n); }

static inline void unit_sha256_block(uint32_t h[8], const uint8_t *p)
{
    static uint32_t k[64]; /* fractional parts of the cube roots of the first 64 primes */
    if (!k[0])
        for (int n = 2, i = 0; i < 64; n++) {
            bool prime = true;
            for (int d = 2; d * d <= n; d++) prime = prime && n % d;
            long double root = cbrtl((long double)n);
            if (prime) k[i++] = (uint32_t)((root - floorl(root)) * 4294967296.0L);
        }
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)p[4 * i] << 24 | (uint32_t)p[4 * i + 1] << 16 | (uint32_t)p[4 * i + 2] << 8 | p[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (unit_rotate(w[i - 15], 7) ^ unit_rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (unit_rotate(w[i - 2], 17) ^ unit_rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t a = s[0], e = s[4];
        uint32_t t =
            s[7] + (unit_rotate(e, 6) ^ unit_rotate(e, 11) ^ unit_rotate(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + k[i] + w[i];
        uint32_t u = (unit_rotate(a, 2) ^ unit_rotate(a, 13) ^ unit_rotate(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

static inline void unit_sha256(char hex[65], const uint8_t *data, size_t n)
{
    uint32_t h[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
    size_t   i = 0;
    for (; n - i >= 64; i += 64) unit_sha256_block(h, data + i);
    uint8_t last[128] = { 0 };
    size_t  rest = n - i, blocks = rest < 56 ? 1 : 2;
    memcpy(last, data + i, rest);
    last[rest] = 0x80;
    for (int b = 0; b < 8; b++) last[64 * blocks - 1 - b] = (uint8_t)((uint64_t)n * 8 >> 8 * b);
    for (size_t b = 0; b < blocks; b++) unit_sha256_block(h, last + 64 * b);
    for (int j = 0; j < 8; j++) sprintf(hex + 8 * j, "%08x", h[j]);
}

static inline void unit_image_hash(char hex[65], const nb_image *image)
{
    unit_sha256(hex, image->rgb, (size_t)image->width * image->height * 3);
}

static inline uint64_t unit_fnv(const uint8_t *data, size_t n)
{
    uint64_t h = 1469598103934665603ull;
    for (size_t i = 0; i < n; i++) h = (h ^ data[i]) * 1099511628211ull;
    return h;
}

/* The picture that the oracle and the reference text generate for this size. */
static inline nb_image unit_generated(int width, int height)
{
    size_t   n = (size_t)width * height * 3;
    nb_image image = { .rgb = malloc(n), .width = width, .height = height };
    uint32_t s = 12345;
    assert_non_null(image.rgb);
    for (size_t i = 0; i < n; i++) {
        s = s * 1664525u + 1013904223u;
        image.rgb[i] = (uint8_t)(s >> 24);
    }
    return image;
}

static inline cJSON *unit_fixture(const char *relative)
{
    nb_error err;
    cJSON   *tree;
    OK(nb_json_file(&tree, unit_path(relative), 64 << 20, &err), &err);
    return tree;
}
static inline const char *unit_text(const cJSON *row, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, key);
    return cJSON_IsString(v) ? v->valuestring : NULL;
}
static inline double unit_number(const cJSON *row, const char *key)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(row, key);
    return cJSON_IsNumber(v) ? v->valuedouble : NAN;
}

/* The bytes of a file of vision_formats.json by name. */
static inline nb_buf unit_format(const cJSON *formats, const char *name)
{
    nb_error err;
    nb_buf   bytes = { 0 };
    for (const cJSON *row = formats->child; row; row = row->next)
        if (!strcmp(unit_text(row, "name"), name)) {
            const char *text = unit_text(row, "base64");
            OK(nb_base64_decode(&bytes, text, strlen(text), name, &err), &err);
            return bytes;
        }
    fail_msg("vision_formats.json has no '%s'", name);
    return bytes;
}

#endif
