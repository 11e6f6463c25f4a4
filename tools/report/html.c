/* html.c - see html.h. */
#include "tools/report/html.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/text/code_point.h"

/* Series colours are Okabe and Ito's, which people with any colour vision tell apart; yellow is darkened on white. */
const char nb_html_style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1a1c1f;--dim:#5b6470;--line:#d9dde3;--card:#f5f6f8;--good:#0b7a3e;--bad:#b3261e;"
    "--s0:#0072b2;--s1:#d55e00;--s2:#009e73;--s3:#b8589a;--s4:#a67c00;--s5:#56a5d9;--s6:#5b6470;--s7:#1a1c1f}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14161a;--fg:#e6e8eb;--dim:#9aa4b0;--line:#323840;--card:#1d2126;--good:#5bd08d;"
    "--bad:#ff8a80;--s0:#4ba3e3;--s1:#f08a3c;--s2:#2fc99b;--s3:#dd8fc2;--s4:#e8c547;--s5:#8fd0ff;--s6:#9aa4b0;--s7:#e6e8eb}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,sans-serif}"
    "main{max-width:1180px;margin:0 auto;padding:24px 20px 60px}h1{font-size:26px;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}"
    "h2{font-size:20px;margin:40px 0 8px;padding-top:12px;border-top:1px solid var(--line)}h3{font-size:16px;margin:20px 0 6px}"
    "p{margin:6px 0 12px;max-width:75ch}a{color:var(--s0)}.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}"
    ".badge{display:inline-block;border:1px solid currentColor;border-radius:4px;padding:1px 9px;font-weight:600}"
    ".tiles{display:flex;flex-wrap:wrap;gap:12px;margin:18px 0;padding:0;list-style:none}"
    ".tiles li{background:var(--card);border-radius:8px;padding:10px 16px;min-width:140px}.tiles b{display:block;font-size:22px;line-height:1.3}"
    ".scroll{overflow-x:auto}table{border-collapse:collapse;margin:10px 0 16px;font-size:13px;font-variant-numeric:tabular-nums}"
    "caption{text-align:left;color:var(--dim);padding:0 0 6px}th,td{padding:4px 10px 4px 0;text-align:left;border-bottom:1px solid var(--line);"
    "vertical-align:top}th{font-weight:600}td,th{white-space:nowrap}.n{text-align:right}"
    "figure{margin:14px 0 20px}figcaption{color:var(--dim);font-size:14px;max-width:80ch}svg{display:block;width:100%;height:auto;max-width:920px}"
    "svg text{fill:var(--fg);font:12px system-ui,sans-serif}svg .dim{fill:var(--dim)}.axis{stroke:var(--line);stroke-width:1;fill:none}"
    ".limit{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:6 4;fill:none}svg .bad{fill:var(--bad)}"
    ".line{fill:none;stroke-width:2;stroke-linejoin:round}"
    "svg .s0{stroke:var(--s0)}svg .s1{stroke:var(--s1)}svg .s2{stroke:var(--s2)}svg .s3{stroke:var(--s3)}svg .s4{stroke:var(--s4)}"
    "svg .s5{stroke:var(--s5)}svg .s6{stroke:var(--s6)}svg .s7{stroke:var(--s7)}"
    "svg .fill{stroke:none}.fill.s0{fill:var(--s0)}.fill.s1{fill:var(--s1)}.fill.s2{fill:var(--s2)}.fill.s3{fill:var(--s3)}"
    ".fill.s4{fill:var(--s4)}.fill.s5{fill:var(--s5)}.fill.s6{fill:var(--s6)}.fill.s7{fill:var(--s7)}"
    ".pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(260px,1fr));gap:12px;margin:8px 0}"
    ".pair>div,.question{background:var(--card);border-radius:8px;padding:8px 12px}.pair h3{margin:0 0 4px}.text{white-space:pre-wrap;overflow-wrap:anywhere}"
    ".question{margin:18px 0 0}.question img{max-height:160px;margin:4px 8px 4px 0;border:1px solid var(--line);border-radius:4px}"
    "pre{background:var(--card);border-radius:8px;padding:10px 12px;font-size:13px;white-space:pre-wrap;overflow-wrap:anywhere}details{margin:8px 0}summary{cursor:pointer}"
    "ul{padding-left:20px}";

const char nb_html_style_hash[] = "sha256-UBJXwzyl3bG4G0NZMt1PAKUQ5Vc08jwkjhbX8aa6ObQ=";

void nb_html_begin(nb_buf *out, const char *title)
{
    nb_buf_str(out, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src '");
    nb_buf_str(out, nb_html_style_hash);
    nb_buf_str(out, "'; img-src data:; base-uri 'none'; form-action 'none'\"/>\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n<meta name=\"referrer\" content=\"no-referrer\"/>\n<title>");
    nb_html_text(out, title);
    nb_buf_str(out, "</title>\n<style>");
    nb_buf_str(out, nb_html_style);
    nb_buf_str(out, "</style>\n</head>\n<body>\n<main>\n<section>\n<h1>");
    nb_html_text(out, title);
    nb_buf_str(out, "</h1>\n");
}

void nb_html_end(nb_buf *out)
{
    nb_buf_str(out, "</section>\n</main>\n</body>\n</html>\n");
}

/* Also C1 controls and the two non-characters: XML and HTML forbid them, and some turn the direction of what follows. */
static bool shown(int32_t c)
{
    if (c == '\n' || c == '\t') return true;
    if (c < 32 || (c >= 127 && c < 160) || c == 0xfffe || c == 0xffff) return false;
    return !(c >= 0x202a && c <= 0x202e) && !(c >= 0x2066 && c <= 0x2069);
}

void nb_html_text(nb_buf *out, const char *text)
{
    size_t n = text ? strlen(text) : 0;
    for (size_t i = 0; i < n;) {
        int32_t c;
        int     used = nb_utf8_step(text + i, n - i, &c);
        if (!shown(c)) nb_buf_str(out, "\xef\xbf\xbd");
        else if (c == '&') nb_buf_str(out, "&amp;");
        else if (c == '<') nb_buf_str(out, "&lt;");
        else if (c == '>') nb_buf_str(out, "&gt;");
        else if (c == '"') nb_buf_str(out, "&quot;");
        else if (c == '\'') nb_buf_str(out, "&#39;");
        else nb_buf_add(out, text + i, (size_t)used);
        i += used ? (size_t)used : n - i; /* 0: the end of the text cut a character */
    }
}

void nb_html_printf(nb_buf *out, const char *format, ...)
{
    char    text[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    nb_html_text(out, text);
}

void nb_html_element(nb_buf *out, const char *tag, const char *attributes, const char *text)
{
    nb_buf_printf(out, attributes ? "<%s %s>" : "<%s>", tag, attributes ? attributes : "");
    nb_html_text(out, text);
    nb_buf_printf(out, "</%s>", tag);
}

void nb_html_section(nb_buf *out, const char *id, const char *title)
{
    nb_buf_printf(out, "</section>\n<section aria-labelledby=\"%s\">\n<h2 id=\"%s\">", id, id);
    nb_html_text(out, title);
    nb_buf_str(out, "</h2>\n");
}

void nb_html_table(nb_buf *out, const char *caption, const nb_html_column *columns, size_t count)
{
    nb_buf_str(out, "<div class=\"scroll\" tabindex=\"0\"><table>");
    if (caption) nb_html_element(out, "caption", NULL, caption);
    nb_buf_str(out, "<thead><tr>");
    for (size_t i = 0; i < count; i++) nb_html_element(out, "th", columns[i].numeric ? "scope=\"col\" class=\"n\"" : "scope=\"col\"", columns[i].title);
    nb_buf_str(out, "</tr></thead>\n<tbody>\n");
}

void nb_html_row(nb_buf *out, const nb_html_column *columns, size_t count, const char *const *cells)
{
    nb_buf_str(out, "<tr>");
    for (size_t i = 0; i < count; i++) {
        const char *attributes = columns[i].numeric ? "class=\"n\"" : NULL;
        nb_html_element(out, i ? "td" : "th", i ? attributes : "scope=\"row\"", cells[i]);
    }
    nb_buf_str(out, "</tr>\n");
}

void nb_html_table_end(nb_buf *out)
{
    nb_buf_str(out, "</tbody></table></div>\n");
}
