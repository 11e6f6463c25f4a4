/* cmd_serve.c - flags to services and a server, and waiting for the signal to stop. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/io/file.h"
#include "tools/cli/output.h"
#include "tools/cli/stop.h"
#include "tools/commands.h"
#include "tools/session.h"

typedef struct {
    nb_common        common;
    nb_compute_flags compute;
    nb_weight_flags  weights;
    nb_engine_flags  engine;
    const char *model, *host, *uds, *api_key_file, *ssl_key, *ssl_cert, *root_path, *local_media, *mm_limit, *mm_kwargs, *draft;
    nb_strings  names, more_models, api_keys, cors_origins;
    int64_t     port, max_model_len, max_num_seqs, mixed_chunk, max_queue, media_timeout, min_pixels, max_pixels, kv_tokens, max_connections;
    uint64_t    media_max_bytes, vision_cache, max_body;
    double      request_timeout, drain_timeout;
    int         metrics_compat, generation_config;
    bool        prefix_caching, metrics, webui, slots, log_requests, offline;
} options;

#define AT(field) .at = offsetof(options, field)
static const nb_arg serve_args[] = {
    {.name = "model", .type = NB_ARG_STRING, AT(model), .positional = true, .required = true, .metavar = "MODEL",
     .help = "checkpoint directory: float, awq, gptq or compressed-tensors"},
    {.name = "host", .type = NB_ARG_STRING, AT(host), .text = "127.0.0.1", .group = "Address",
     .help = "address to listen on; 0.0.0.0 is every IPv4 address of the machine"},
    {.name = "port", .type = NB_ARG_INT, AT(port), .min = 0, .max = 65535, .text = "8000", .group = "Address",
     .help = "port to listen on; 0 takes a free one and says which"},
    {.name = "uds", .type = NB_ARG_STRING, AT(uds), .metavar = "PATH", .group = "Address", .advanced = true,
     .help = "listen on a Unix socket instead"},
    {.name = "ssl-keyfile", .type = NB_ARG_STRING, AT(ssl_key), .metavar = "FILE", .group = "Address", .advanced = true,
     .help = "private key (PEM): speak TLS, with --ssl-certfile"},
    {.name = "ssl-certfile", .type = NB_ARG_STRING, AT(ssl_cert), .metavar = "FILE", .group = "Address", .advanced = true,
     .help = "certificate chain (PEM)"},
    {.name = "root-path", .type = NB_ARG_STRING, AT(root_path), .metavar = "/PREFIX", .group = "Address", .advanced = true,
     .help = "prefix of all paths, behind a proxy that passes it on"},
    {.name = "max-connections", .type = NB_ARG_INT, AT(max_connections), .min = 1, .max = 65536, .text = "1024", .group = "Address",
     .advanced = true, .help = "connections at a time"},

    {.name = "served-model-name", .aliases = "alias", .type = NB_ARG_STRINGS, AT(names), .metavar = "NAME",
     .shown = "the folder's name", .group = "Models", .help = "what clients call the model; several are possible"},
    {.name = "add-model", .type = NB_ARG_STRINGS, AT(more_models), .metavar = "NAME=DIR", .group = "Models", .advanced = true,
     .help = "serve a further checkpoint under this name"},
    {.name = "generation-config", .type = NB_ARG_CHOICE, AT(generation_config), .choices = "auto|none", .text = "auto", .group = "Models",
     .advanced = true, .help = "sampling settings that a request leaves out come from the checkpoint; none: temperature 1 and nothing else"},

    {.name = "api-key", .type = NB_ARG_STRINGS, AT(api_keys), .metavar = "KEY", .group = "Access", .transient = true,
     .help = "key that every request but /health needs; better in a file, since others can read a command line"},
    {.name = "api-key-file", .type = NB_ARG_STRING, AT(api_key_file), .metavar = "FILE", .group = "Access",
     .help = "keys, one a line"},
    {.name = "cors-origins", .aliases = "allowed-origins", .type = NB_ARG_STRINGS, AT(cors_origins), .metavar = "ORIGIN", .group = "Access",
     .advanced = true, .help = "web pages from these origins may ask; '*' is all of them"},
    {.name = "allowed-local-media-path", .aliases = "media-path", .type = NB_ARG_STRING, AT(local_media), .metavar = "DIR", .group = "Access",
     .advanced = true, .help = "file:// pictures below this folder are served; without it none are"},
    {.name = "offline", .type = NB_ARG_BOOL, AT(offline), .text = "false", .group = "Access", .help = "fetch no http(s) pictures"},
    {.name = "media-timeout", .type = NB_ARG_INT, AT(media_timeout), .min = 1, .max = 600, .text = "10", .metavar = "S", .group = "Access",
     .advanced = true, .help = "seconds for fetching a picture"},
    {.name = "media-max-bytes", .type = NB_ARG_SIZE, AT(media_max_bytes), .min = 1024, .max = 4e9, .text = "20MiB", .group = "Access",
     .advanced = true, .help = "size of an encoded picture at most"},

    {.name = "max-model-len", .brief = "c", .aliases = "ctx-size", .type = NB_ARG_INT, AT(max_model_len), .min = 16, .max = 1e7,
     .shown = "the model's, at most --kv-cache-tokens", .group = "Capacity", .help = "tokens of a prompt and its answer together"},
    {.name = "kv-cache-tokens", .type = NB_ARG_INT, AT(kv_tokens), .min = 32, .max = 1e9, .text = "65536", .group = "Capacity",
     .help = "tokens whose keys and values are kept, over all requests; memory is taken as they come"},
    {.name = "max-num-seqs", .aliases = "parallel", .brief = "np", .type = NB_ARG_INT, AT(max_num_seqs), .min = 1, .max = 256, .text = "32", .group = "Capacity",
     .help = "answers computed at a time"},
    {.name = "mixed-chunk", .aliases = "max-num-partial-prefills", .type = NB_ARG_INT, AT(mixed_chunk), .min = 1, .max = 65536, .text = "64",
     .group = "Capacity", .advanced = true, .help = "prompt tokens in a step in which others decode: fewer make their tokens come more evenly"},
    {.name = "max-queue", .aliases = "max-num-queued-reqs", .type = NB_ARG_INT, AT(max_queue), .min = 1, .max = 100000, .text = "256", .group = "Capacity",
     .help = "requests waiting and running at most; more are answered with 503"},
    {.name = "enable-prefix-caching", .type = NB_ARG_BOOL, AT(prefix_caching), .text = "true", .group = "Capacity", .advanced = true,
     .help = "beginnings that were computed before are not computed again"},
    {.name = "vision-cache", .aliases = "mm-processor-cache-gb,vision-cache-gb", .type = NB_ARG_SIZE, AT(vision_cache), .min = 0, .max = 1e13,
     .text = "1GiB", .group = "Capacity", .advanced = true, .help = "memory for the rows of pictures that may come again"},
    {.name = "draft", .type = NB_ARG_STRING, AT(draft), .text = "ngram", .metavar = "ngram|off|N", .group = "Capacity", .advanced = true,
     .help = "guess ahead what repeats the prompt, up to N tokens (ngram: 8), while few requests run; answers stay the same"},
    {.name = "request-timeout", .type = NB_ARG_NUMBER, AT(request_timeout), .min = 0, .max = 1e6, .text = "0", .metavar = "S", .group = "Capacity",
     .shown = "none", .help = "seconds after which a request fails"},
    {.name = "drain-timeout", .type = NB_ARG_NUMBER, AT(drain_timeout), .min = 0, .max = 1e6, .text = "30", .metavar = "S", .group = "Capacity",
     .advanced = true, .help = "seconds that running requests get when the server is told to stop"},
    {.name = "max-body", .type = NB_ARG_SIZE, AT(max_body), .min = 1024, .max = 4e9, .text = "64MiB", .group = "Capacity", .advanced = true,
     .help = "size of a request at most"},

    {.name = "min-pixels", .type = NB_ARG_INT, AT(min_pixels), .min = 1, .max = 1e9, .shown = "the checkpoint's", .group = "Pictures",
     .help = "pictures with fewer pixels are enlarged, unless a request says otherwise"},
    {.name = "max-pixels", .type = NB_ARG_INT, AT(max_pixels), .min = 1, .max = 1e9, .shown = "the checkpoint's", .group = "Pictures",
     .help = "pictures with more pixels are shrunk; a request can lower it, never raise it"},
    {.name = "mm-processor-kwargs", .type = NB_ARG_STRING, AT(mm_kwargs), .metavar = "JSON", .group = "Pictures", .advanced = true,
     .help = "the same as vLLM takes it: {\"max_pixels\": 1003520}"},
    {.name = "limit-mm-per-prompt", .type = NB_ARG_STRING, AT(mm_limit), .metavar = "JSON", .text = "image=32,video=4", .group = "Pictures",
     .advanced = true, .help = "pictures and videos of a request: {\"image\": 4} or image=4,video=0"},

    {.name = "metrics", .type = NB_ARG_BOOL, AT(metrics), .text = "true", .group = "Watching", .help = "Prometheus text at /metrics"},
    {.name = "metrics-compat", .type = NB_ARG_CHOICE, AT(metrics_compat), .choices = "nibble|vllm", .text = "nibble", .group = "Watching",
     .advanced = true, .help = "prefix of the names; vllm suits dashboards made for it"},
    {.name = "webui", .type = NB_ARG_BOOL, AT(webui), .text = "true", .group = "Watching", .help = "the page at /"},
    {.name = "slots", .type = NB_ARG_BOOL, AT(slots), .text = "true", .group = "Watching", .advanced = true, .help = "queue and cache figures at /slots"},
    {.name = "log-requests", .aliases = "enable-log-requests,!disable-log-requests", .type = NB_ARG_BOOL, AT(log_requests), .text = "false",
     .group = "Watching", .help = "a line of JSON on stderr for every request, without its contents"},
};
#undef AT

static const nb_arg_block blocks[] = {
    {serve_args, NB_COUNT(serve_args), 0},
    {nb_compute_args, NB_COMPUTE_ARGS, offsetof(options, compute)},
    {nb_weight_args, NB_WEIGHT_ARGS, offsetof(options, weights)},
    {nb_engine_args, NB_ENGINE_ARGS, offsetof(options, engine)},
    {nb_common_args, NB_COMMON_ARGS, offsetof(options, common)},
    {NULL, 0, 0}};

#ifdef NIBBLE_SERVE

#include <xxhash.h>

#include "tools/serve/server.h"

enum { MAX_MODELS = 16, MAX_KEYS = 1024, DRAFT = 8 };

typedef struct {
    nb_session      session;
    nb_served_model served;
    const char     *names[16];
    char           *own_name;
} one_model;

typedef struct {
    options    *opt;
    nb_buf      keys_text, tls_key, tls_cert;
    const char *keys[MAX_KEYS];
    int         key_count;
    one_model   models[MAX_MODELS];
    nb_served_model served[MAX_MODELS];
    int         model_count;
    nb_server  *server;
} serving;

/* ---- what was asked for -------------------------------------------------------------------------------------------------- */

/* Keys from the flag, then from the file, one a line; empty lines and comments are passed over. */
static nb_status read_keys(serving *s, nb_error *err)
{
    for (int i = 0; i < s->opt->api_keys.count && i < MAX_KEYS; i++) s->keys[s->key_count++] = s->opt->api_keys.items[i];
    if (s->opt->api_key_file) {
        NB_TRY(nb_file_read(&s->keys_text, s->opt->api_key_file, 1 << 20, err));
        char *line = s->keys_text.data;
        for (char *text; line && (text = strsep(&line, "\n")) != NULL;) {
            text += strspn(text, " \t");
            text[strcspn(text, "\r \t")] = 0;
            if (!*text || *text == '#') continue;
            if (s->key_count == MAX_KEYS) return nb_fail(err, NB_ERR_INPUT, "%s: more than %d keys", s->opt->api_key_file, MAX_KEYS);
            s->keys[s->key_count++] = text;
        }
        if (s->key_count == 0) return nb_fail(err, NB_ERR_INPUT, "%s: holds no key", s->opt->api_key_file);
    }
    for (int i = 0; i < s->key_count; i++)
        if (!s->keys[i][0]) return nb_fail(err, NB_ERR_ARGUMENT, "--api-key: an empty key lets everybody in");
    return NB_OK;
}

static nb_status read_tls(serving *s, nb_error *err)
{
    if (!s->opt->ssl_key != !s->opt->ssl_cert)
        return nb_fail(err, NB_ERR_ARGUMENT, "--ssl-keyfile and --ssl-certfile go together; one of them is missing");
    if (!s->opt->ssl_key) return NB_OK;
    NB_TRY(nb_file_read(&s->tls_key, s->opt->ssl_key, 1 << 20, err));
    return nb_file_read(&s->tls_cert, s->opt->ssl_cert, 1 << 20, err);
}

/* {"image": 4, "video": 0} or image=4,video=0; what is not named keeps its value. */
static nb_status read_mm_limit(int *images, int *videos, const char *text, nb_error *err)
{
    int64_t value[2] = {*images, *videos};
    if (text[0] == '{') {
        cJSON *o;
        NB_TRY(nb_json_parse(&o, text, strlen(text), "--limit-mm-per-prompt", err));
        nb_status status = nb_json_opt_int(o, "image", 0, 4096, &value[0], "--limit-mm-per-prompt", err);
        if (status == NB_OK) status = nb_json_opt_int(o, "video", 0, 4096, &value[1], "--limit-mm-per-prompt", err);
        cJSON_Delete(o);
        NB_TRY(status);
    } else {
        char  copy[128], *at = copy, *word;
        snprintf(copy, sizeof copy, "%s", text);
        while ((word = strsep(&at, ",")) != NULL) {
            bool image = !strncmp(word, "image=", 6), video = !strncmp(word, "video=", 6);
            if (!image && !video)
                return nb_fail(err, NB_ERR_ARGUMENT, "--limit-mm-per-prompt: '%s' is not image=N or video=N", word);
            NB_TRY(nb_parse_int(&value[video], word + 6, 0, 4096, "--limit-mm-per-prompt", err));
        }
    }
    *images = (int)value[0];
    *videos = (int)value[1];
    return NB_OK;
}

static nb_status read_mm_kwargs(nb_pixel_limits *limits, const char *text, nb_error *err)
{
    cJSON *o;
    if (!text) return NB_OK;
    NB_TRY(nb_json_parse(&o, text, strlen(text), "--mm-processor-kwargs", err));
    nb_status status = nb_json_opt_int(o, "min_pixels", 1, 1 << 30, &limits->min_pixels, "--mm-processor-kwargs", err);
    if (status == NB_OK) status = nb_json_opt_int(o, "max_pixels", 1, 1 << 30, &limits->max_pixels, "--mm-processor-kwargs", err);
    cJSON_Delete(o);
    return status;
}

static nb_status read_draft(int *out, const char *text, nb_error *err)
{
    int64_t n = DRAFT;
    if (!strcmp(text, "off")) n = 0;
    else if (strcmp(text, "ngram")) NB_TRY(nb_parse_int(&n, text, 0, 64, "--draft", err));
    *out = (int)n;
    return NB_OK;
}

/* ---- models -------------------------------------------------------------------------------------------------------------- */

/* Names and shapes of all tensors, with the quantization: the same checkpoint has the same one on every machine. */
static void fingerprint(char out[40], const nb_model *m)
{
    XXH64_hash_t h = XXH64(NIBBLE_VERSION, strlen(NIBBLE_VERSION), 0);
    for (size_t i = 0; i < nb_checkpoint_count(m->checkpoint); i++) {
        const nb_entry *e = nb_checkpoint_at(m->checkpoint, i);
        h = XXH64(e->name, strlen(e->name), h);
        h = XXH64(e->tensor->shape, sizeof e->tensor->shape[0] * (size_t)e->tensor->rank, h ^ (XXH64_hash_t)e->tensor->dtype);
    }
    snprintf(out, 40, "fp_%016llx", (unsigned long long)h);
}

static nb_status service_options(nb_service_options *o, const options *opt, const one_model *m, nb_error *err)
{
    *o = (nb_service_options){.max_model_len = (size_t)opt->max_model_len, .vision_cache_bytes = opt->vision_cache,
                              .max_queue = (int)opt->max_queue, .max_images = 32, .max_videos = 4,
                              .request_timeout_s = opt->request_timeout, .greedy_default = opt->generation_config == 1};
    o->engine = (nb_engine_options){.max_tokens = (size_t)opt->kv_tokens, .chunk = (size_t)opt->engine.chunk,
                                    .mixed_chunk = (size_t)opt->mixed_chunk, .max_sequences = (int)opt->max_num_seqs,
                                    .kv_type = nb_session_kv_type(&m->session, &opt->engine), .prefix_cache = opt->prefix_caching,
                                    .overcommit = true};
    o->limits = (nb_pixel_limits){.min_pixels = opt->min_pixels, .max_pixels = opt->max_pixels};
    o->media = (nb_media_options){.root = opt->local_media, .offline = opt->offline, .max_bytes = opt->media_max_bytes,
                                  .timeout_s = (int)opt->media_timeout};
    NB_TRY(read_mm_kwargs(&o->limits, opt->mm_kwargs, err));
    NB_TRY(read_draft(&o->draft, opt->draft, err));
    return read_mm_limit(&o->max_images, &o->max_videos, opt->mm_limit, err);
}

static nb_status open_model(serving *s, const char *directory, const char *name, nb_error *err)
{
    one_model         *m = &s->models[s->model_count];
    nb_service_options o;
    if (s->model_count == MAX_MODELS) return nb_fail(err, NB_ERR_ARGUMENT, "more than %d models", MAX_MODELS);
    s->model_count++;
    m->served.names = m->names;
    if (name) m->names[m->served.name_count++] = name;
    for (int i = 0; !name && i < s->opt->names.count && i < (int)NB_COUNT(m->names); i++) m->names[m->served.name_count++] = s->opt->names.items[i];
    if (!m->served.name_count) {
        m->own_name = nb_folder_name(directory);
        if (!m->own_name) return nb_fail(err, NB_ERR_MEMORY, "out of memory");
        m->names[m->served.name_count++] = m->own_name;
    }
    NB_TRY(nb_session_open(&m->session, &s->opt->compute, err));
    NB_TRY(nb_session_model(&m->session, directory, &s->opt->weights, err));
    NB_TRY(nb_session_head(&m->session, &s->opt->engine, err));
    NB_TRY(service_options(&o, s->opt, m, err));
    fingerprint(m->served.fingerprint, m->session.model);
    NB_TRY(nb_metrics_new(&m->served.metrics, m->names[0], err));
    NB_TRY(nb_service_start(&m->served.service, m->session.model, &o, m->served.metrics, err));
    s->served[s->model_count - 1] = m->served;
    return NB_OK;
}

static nb_status open_models(serving *s, nb_error *err)
{
    NB_TRY(nb_weight_check(&s->opt->weights, 1 + (size_t)s->opt->more_models.count, err));
    NB_TRY(open_model(s, s->opt->model, NULL, err));
    for (int i = 0; i < s->opt->more_models.count; i++) {
        char       *text = (char *)s->opt->more_models.items[i]; /* the list is ours; cut in two in place */
        char       *equals = strchr(text, '=');
        if (!equals || equals == text || !equals[1]) return nb_fail(err, NB_ERR_ARGUMENT, "--add-model: '%s' is not NAME=DIR", text);
        *equals = 0;
        NB_TRY(open_model(s, equals + 1, text, err));
    }
    return NB_OK;
}

/* ---- serving ------------------------------------------------------------------------------------------------------------- */

static nb_status start_server(serving *s, nb_error *err)
{
    const options    *opt = s->opt;
    nb_server_options o = {.host = opt->host, .port = (int)opt->port, .unix_socket = opt->uds, .tls_key = s->tls_key.data,
                           .tls_cert = s->tls_cert.data, .api_keys = s->keys, .api_key_count = s->key_count,
                           .cors_origins = (const char *const *)opt->cors_origins.items, .cors_count = opt->cors_origins.count,
                           .root_path = opt->root_path, .metrics = opt->metrics, .metrics_vllm = opt->metrics_compat == 1,
                           .webui = opt->webui, .slots = opt->slots, .log_requests = opt->log_requests, .max_body = opt->max_body,
                           .max_connections = (int)opt->max_connections, .models = s->served, .model_count = s->model_count};
    return nb_server_start(&s->server, &o, err);
}

static void say_where(const serving *s)
{
    const options *opt = s->opt;
    bool           local = !strcmp(opt->host, "127.0.0.1") || !strcmp(opt->host, "localhost") || !strcmp(opt->host, "::1");
    if (opt->uds) nb_note("serving %s on the Unix socket %s", s->served[0].names[0], opt->uds);
    else nb_note("serving %s at http%s://%s%s%s:%d%s; the API is under /v1%s", s->served[0].names[0], opt->ssl_key ? "s" : "",
                 strchr(opt->host, ':') ? "[" : "", opt->host, strchr(opt->host, ':') ? "]" : "", nb_server_port(s->server),
                 opt->webui ? "/" : "", local ? "; only this machine can reach it (--host 0.0.0.0 opens it)" : "");
    if (!local && !opt->uds && !s->key_count) nb_warn("anybody who reaches this address can use the model: set --api-key-file");
}

static nb_status serve(serving *s, nb_error *err)
{
    NB_TRY(read_keys(s, err));
    NB_TRY(read_tls(s, err));
    NB_TRY(open_models(s, err));
    NB_TRY(start_server(s, err));
    say_where(s);
    while (!nb_stop_requested()) nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    nb_note("stopping: running requests get %.0f seconds, a second signal ends them at once", s->opt->drain_timeout);
    nb_server_draining(s->server);
    return NB_OK;
}

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    serving *s;
    (void)args;
    NB_TRY(nb_alloc(&s, 1, sizeof *s, "the server", err));
    s->opt = opaque;
    nb_status status = serve(s, err);
    for (int i = 0; i < s->model_count; i++) nb_service_stop(s->models[i].served.service, status == NB_OK ? s->opt->drain_timeout : 0);
    nb_server_stop(s->server);
    for (int i = 0; i < s->model_count; i++) {
        nb_metrics_free(s->models[i].served.metrics);
        nb_session_close(&s->models[i].session);
        free(s->models[i].own_name);
    }
    nb_buf_free(&s->keys_text);
    nb_buf_free(&s->tls_key);
    nb_buf_free(&s->tls_cert);
    free(s);
    return status;
}

#else

static nb_status run(nb_args *args, void *opaque, nb_error *err)
{
    (void)args, (void)opaque;
    return nb_fail(err, NB_ERR_UNSUPPORTED, "this nibble was built without its server; install libmicrohttpd-dev and build with "
                   "-DNIBBLE_SERVE=ON");
}

#endif

const nb_command nb_command_serve = {
    .name = "serve",
    .summary = "answer OpenAI-compatible requests over HTTP, with a page to chat on",
    .usage = "MODEL [flags]",
    .about = "Loads a checkpoint and serves /v1/chat/completions, /v1/completions, /v1/models, /tokenize, /detokenize, /apply-template, "
             "/metrics and /health, streaming or not, with pictures as data: or http(s) URLs. Many requests are answered side by side; a "
             "request's answer does not depend on the others.\n\n"
             "It listens on this machine alone unless --host says otherwise. Pictures are fetched from public addresses only. SIGTERM and "
             "Ctrl-C let running requests end first.",
    .examples = "  nibble serve 2b-awq\n"
                "  nibble serve 2b-awq --host 0.0.0.0 --api-key-file keys.txt --served-model-name qwen2-vl\n"
                "  nibble serve MODEL --max-pixels 1280*28*28 --max-model-len 8k --log-requests\n",
    .blocks = blocks,
    .options_size = sizeof(options),
    .run = run,
};
