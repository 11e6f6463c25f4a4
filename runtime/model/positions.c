/* positions.c - M-RoPE position ids, as get_rope_index of transformers 4.x gives them.
 *
 * Text advances all three axes together.  A picture or video of merged grid (t, h, w) that starts at position b gives token
 * (a, y, x) the position (b + a, b + y, b + x), and the text after it goes on at b + max(t, h, w).
 * Without any media, pad tokens are ordinary text.
 */
#include <string.h>

#include "runtime/model/prompt.h"

nb_status nb_positions(int32_t *position, int32_t *rope_delta, const int32_t *ids, size_t count, const nb_patches *media,
                       int media_count, const nb_config *config, nb_error *err)
{
    int32_t *axis[3] = { position, position + count, position + 2 * count };
    int32_t  next = 0, last = -1;
    int      used = 0;
    for (size_t i = 0; i < count;) {
        bool pad = media_count > 0 && (ids[i] == config->image_pad || ids[i] == config->video_pad) && i > 0 && ids[i - 1] == config->vision_start;
        if (!pad) {
            for (int a = 0; a < 3; a++) axis[a][i] = next;
            last = next++;
            i++;
            continue;
        }
        if (used == media_count)
            return nb_fail(err, NB_ERR_INPUT, "the prompt has more picture or video marks than pictures and videos (%d)", media_count);
        const nb_patches *m = &media[used++];
        int32_t           h = m->h / config->v_merge, w = m->w / config->v_merge;
        size_t            tokens = (size_t)m->t * h * w;
        if (tokens > count - i)
            return nb_fail(err, NB_ERR_INPUT, "picture %d needs %zu tokens, the prompt has %zu left", used, tokens, count - i);
        for (size_t j = 0; j < tokens; j++) {
            axis[0][i + j] = next + (int32_t)(j / ((size_t)h * w));
            axis[1][i + j] = next + (int32_t)(j / w % h);
            axis[2][i + j] = next + (int32_t)(j % w);
        }
        int32_t step = m->t > h ? m->t : h;
        next += step > w ? step : w;
        last = next - 1;
        i += tokens;
    }
    if (used != media_count)
        return nb_fail(err, NB_ERR_INPUT, "the prompt has %d picture or video marks for %d pictures and videos", used, media_count);
    *rope_delta = last + 1 - (int32_t)count;
    return NB_OK;
}
