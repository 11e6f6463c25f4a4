/* picture_speed.c - what a picture costs before the model sees it: decode, resize and cut into patches, on one thread.
 *
 *     picture_speed [FILE [ROUNDS]]
 *
 * FILE is a picture; without one, or with "-", a JPEG of 1920 x 1080 pixels is made first: noise of eight sizes with hard edges,
 * quality 90, 4:2:0.  Milliseconds of CPU time, the least and the median of the rounds.  "all" is nb_image_decode and nb_preprocess
 * with the published limits; "resize" is measured on its own too and counts in "resize + patches".
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <jpeglib.h>

#include "kernels/resize.h"
#include "runtime/io/file.h"
#include "runtime/vision/preprocess.h"

enum { WIDTH = 1920, HEIGHT = 1080, MAX_ROUNDS = 101, STEPS = 4 };

static uint32_t mix(uint32_t x, uint32_t y, uint32_t seed)
{
    uint32_t h = x * 374761393u + y * 668265263u + seed * 2246822519u;
    h = (h ^ (h >> 13)) * 1274126177u;
    return h ^ (h >> 16);
}

/* 0..1, smooth over `size` pixels */
static double noise(int x, int y, int size, uint32_t seed)
{
    uint32_t cx = (uint32_t)(x / size), cy = (uint32_t)(y / size);
    double   fx = (double)(x % size) / size, fy = (double)(y % size) / size;
    double   a = mix(cx, cy, seed), b = mix(cx + 1, cy, seed), c = mix(cx, cy + 1, seed), d = mix(cx + 1, cy + 1, seed);
    return ((a + (b - a) * fx) * (1 - fy) + (c + (d - c) * fx) * fy) / 4294967296.0;
}

static void make_jpeg(unsigned char **bytes, unsigned long *n)
{
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr       errors;
    static uint8_t              row[WIDTH * 3];
    JSAMPROW                    rows[1] = { row };
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, bytes, n);
    jpeg.image_width = WIDTH, jpeg.image_height = HEIGHT, jpeg.input_components = 3, jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 90, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < HEIGHT; y++) {
        for (int x = 0; x < WIDTH; x++)
            for (int c = 0; c < 3; c++) {
                double v = 0, weight = 90;
                for (int size = 256; size >= 2; size /= 2, weight *= 0.62) v += weight * noise(x, y, size, (uint32_t)(size + c));
                if ((x / 97 + y / 61) % 5 == 0) v = 255 - v;
                row[3 * x + c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
            }
        jpeg_write_scanlines(&jpeg, rows, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
}

static double cpu_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return 1e3 * (double)t.tv_sec + 1e-6 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    nb_error       err;
    nb_processor   p;
    unsigned char *bytes = NULL;
    unsigned long  n = 0;
    int            rounds = argc > 2 ? atoi(argv[2]) : 9, rows = 0, width = 0, height = 0;
    static double  ms[STEPS][MAX_ROUNDS];
    if (rounds < 1 || rounds > MAX_ROUNDS) return 2;
    if (argc > 1 && strcmp(argv[1], "-") != 0) {
        FILE *file = fopen(argv[1], "rb");
        if (!file || fseek(file, 0, SEEK_END) || !(n = (unsigned long)ftell(file)) || !(bytes = malloc(n))) return 1;
        rewind(file);
        if (fread(bytes, 1, n, file) != n) return 1;
        fclose(file);
    } else
        make_jpeg(&bytes, &n);
    if (nb_processor_open(&p, ".", &err)) return 1;
    for (int i = 0; i < rounds; i++) {
        nb_image   image, resized;
        nb_patches patches;
        double     start = cpu_ms();
        if (nb_image_decode(&image, bytes, n, "picture", NULL, &err)) return fprintf(stderr, "%s\n", err.text), 1;
        double decoded = cpu_ms();
        if (nb_preprocess(&patches, &image, 1, &p, NULL, &err)) return fprintf(stderr, "%s\n", err.text), 1;
        double done = cpu_ms();
        width = image.width, height = image.height, rows = patches.h * patches.w;
        double before = cpu_ms();
        if (nb_image_resize(&resized, &image, patches.w * p.patch, patches.h * p.patch, &err)) return 1;
        double after = cpu_ms();
        ms[0][i] = decoded - start, ms[1][i] = done - decoded, ms[2][i] = after - before, ms[3][i] = done - start;
        nb_image_free(&image), nb_image_free(&resized), nb_patches_free(&patches);
    }
    static const char *const names[STEPS] = { "decode", "resize + patches", "resize", "all" };
    printf("%d x %d pixels in %lu bytes to %d patches; one thread, CPU ms of %d rounds\n", width, height, n, rows, rounds);
    printf("| step | least | median |\n| --- | ---: | ---: |\n");
    for (int s = 0; s < STEPS; s++) {
        qsort(ms[s], (size_t)rounds, sizeof(double), ascending);
        printf("| %s | %.1f | %.1f |\n", names[s], ms[s][0], ms[s][rounds / 2]);
    }
    free(bytes);
    return 0;
}
