/* webp.c - still WebP pictures through libwebp.
 *
 * Not done: animations (their first frame needs the demux library).  Options stay at the library's defaults, as Pillow
 * leaves them.
 */
#include "runtime/vision/decoders.h"

#ifdef NIBBLE_WEBP
#include <stdlib.h>

#include <webp/decode.h>

/* The library decodes straight into the picture, or into a temporary RGBA one when there is alpha to deal with. */
static VP8StatusCode decode_into(nb_image *out, const nb_encoded *in, WebPDecoderConfig *config, uint8_t *rgba)
{
    int channels = rgba ? 4 : 3;
    config->output.colorspace = rgba ? MODE_RGBA : MODE_RGB;
    config->output.is_external_memory = 1;
    config->output.u.RGBA.rgba = rgba ? rgba : out->rgb;
    config->output.u.RGBA.stride = out->width * channels;
    config->output.u.RGBA.size = (size_t)out->width * out->height * channels;
    VP8StatusCode code = WebPDecode(in->bytes, in->n, config);
    if (code != VP8_STATUS_OK || !rgba) return code;
    for (size_t i = 0; i < (size_t)out->width * out->height; i++)
        nb_drop_alpha(out->rgb + 3 * i, rgba + 4 * i, in->white_alpha);
    return code;
}

static nb_status webp_failed(const nb_encoded *in, VP8StatusCode code, nb_error *err)
{
    switch (code) {
    case VP8_STATUS_OUT_OF_MEMORY: return nb_fail(err, NB_ERR_MEMORY, "%s: no memory to decode this WebP", in->name);
    case VP8_STATUS_UNSUPPORTED_FEATURE:
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: this kind of WebP is not supported", in->name);
    case VP8_STATUS_NOT_ENOUGH_DATA:
    case VP8_STATUS_SUSPENDED:
        return nb_fail(err, NB_ERR_INPUT, "%s: damaged WebP: the file is cut short at %zu bytes", in->name, in->n);
    default: return nb_fail(err, NB_ERR_INPUT, "%s: damaged WebP (libwebp status %d)", in->name, (int)code);
    }
}

nb_status nb_decode_webp(nb_image *out, const nb_encoded *in, nb_error *err)
{
    WebPDecoderConfig config;
    if (!WebPInitDecoderConfig(&config))
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: the installed libwebp is not the one nibble was built for", in->name);
    VP8StatusCode code = WebPGetFeatures(in->bytes, in->n, &config.input);
    if (code != VP8_STATUS_OK) return webp_failed(in, code, err);
    if (config.input.has_animation)
        return nb_fail(err, NB_ERR_UNSUPPORTED, "%s: animated WebP is not supported; save one frame as a still picture",
                       in->name);
    NB_TRY(nb_image_claim(out, in, config.input.width, config.input.height, 0, err));
    uint8_t *rgba = NULL;
    if (config.input.has_alpha) NB_TRY(nb_alloc(&rgba, (size_t)out->width * out->height, 4, "a WebP with alpha", err));
    code = decode_into(out, in, &config, rgba);
    free(rgba);
    WebPFreeDecBuffer(&config.output);
    return code == VP8_STATUS_OK ? NB_OK : webp_failed(in, code, err);
}

#else

nb_status nb_decode_webp(nb_image *out, const nb_encoded *in, nb_error *err)
{
    (void)out;
    return nb_fail(err, NB_ERR_UNSUPPORTED,
                   "%s: this nibble was built without WebP; install libwebp-dev and build with -DNIBBLE_WEBP=ON", in->name);
}

#endif
