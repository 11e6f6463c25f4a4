/* The forms that people keep chat data in: what each row means is written out by hand; LLaMA-Factory's files are read through its
 * own dataset_info.json, and every one of its entries has a row built here from its column names. */
#include "unit.h"

#include <time.h>

#include "calib/dataset.h"
#include "temp_files.h"

/* A chat as one line: user[image a.png|text Who?] assistant[text He.] {tools} */
static void describe(const nb_chat *c, nb_buf *out)
{
    nb_buf_str(out, "");
    for (int i = 0; i < c->count; i++) {
        nb_buf_printf(out, "%s%s[", i ? " " : "", c->messages[i].role);
        for (int j = 0; j < c->messages[i].count; j++) {
            const nb_part *p = &c->messages[i].parts[j];
            nb_buf_str(out, j ? "|" : "");
            if (p->kind == NB_PART_TEXT) nb_buf_printf(out, "text %s", p->text);
            if (p->kind == NB_PART_IMAGE) nb_buf_printf(out, "image %s", p->text ? p->text : "?");
            if (p->kind == NB_PART_VIDEO) nb_buf_str(out, p->is_file ? "video" : "frames");
            for (int f = 0; p->kind == NB_PART_VIDEO && f < p->frame_count; f++) nb_buf_printf(out, " %s", p->frames[f]);
            if (p->max_pixels) nb_buf_printf(out, " max %lld", (long long)p->max_pixels);
        }
        nb_buf_char(out, ']');
    }
    if (c->tools) nb_buf_printf(out, " {%s}", c->tools);
}

typedef struct {
    const char  *name, *file; /* file: its name; NULL is "rows.json" */
    const char  *text;
    nb_data_form asked, found;
    nb_status    status;
    const char  *want; /* NB_OK: all chats, each behind the line it begins on; otherwise a part of the first error */
} form_case;

#define OK_AUTO(form) NB_DATA_AUTO, NB_DATA_##form, NB_OK
#define BAD(status) NB_DATA_AUTO, NB_DATA_AUTO, NB_ERR_##status
#define B64 "aGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8gaGVsbG8="
#define QA "{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"A\"}"

static const form_case cases[] = {
    /* ---- the spellings of OpenAI, of Qwen2-VL's README, of transformers and TRL ---- */
    {"messages", NULL, "{\"messages\":[" QA "]}\n{\"messages\":[" QA "]}", OK_AUTO(OPENAI),
     "1 user[text Q] assistant[text A]; 2 user[text Q] assistant[text A]; "},
    {"a list of lists of messages", NULL, "[[" QA "],\n[" QA "]]", OK_AUTO(OPENAI),
     "1 user[text Q] assistant[text A]; 2 user[text Q] assistant[text A]; "},
    {"parts with image", NULL, "[[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"file:///a.png\",\"max_pixels\":50176},"
     "{\"type\":\"text\",\"text\":\"Q\"}]}]]", OK_AUTO(OPENAI), "1 user[image file:///a.png max 50176|text Q]; "},
    {"parts with image_url", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":"
     "\"https://x.org/a.png\"}}]}]}", OK_AUTO(OPENAI), "1 user[image https://x.org/a.png]; "},
    {"parts with url and path (transformers)", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"url\":"
     "\"https://x.org/a.png\"},{\"type\":\"image\",\"path\":\"b.png\",\"max_pixels\":784},{\"type\":\"text\",\"text\":\"Q\"}]}]}",
     OK_AUTO(OPENAI), "1 user[image https://x.org/a.png|image b.png max 784|text Q]; "},
    {"bare parts and a list (TRL)", NULL, "{\"images\":[\"a.png\",\"b.png\"],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
     "\"image\"},{\"type\":\"text\",\"text\":\"Q\"},{\"type\":\"image\",\"max_pixels\":784}]}]}", OK_AUTO(OPENAI),
     "1 user[image a.png|text Q|image b.png max 784]; "},
    {"tool calls", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":null,\"tool_calls\":"
     "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"content\":\"R\"}]}",
     OK_AUTO(OPENAI), "1 user[text Q] assistant[text <tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>] tool[text R]; "},
    {"video frames as a part", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"video\",\"video\":[\"a.png\",\"b.png\"]}]}]}",
     OK_AUTO(OPENAI), "1 user[frames a.png b.png]; "},
    /* ---- sharegpt ---- */
    {"conversations", NULL, "[{\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"gpt\",\"value\":\"A\"}]}]",
     OK_AUTO(SHAREGPT), "1 user[text Q] assistant[text A]; "},
    {"conversation of roles (lmsys)", NULL, "{\"conversation\":[" QA "]}", OK_AUTO(OPENAI), "1 user[text Q] assistant[text A]; "},
    {"function_call and observation", NULL, "[{\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"function_call\",\"value\":"
     "\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"},{\"from\":\"observation\",\"value\":\"R\"},{\"from\":\"gpt\",\"value\":\"A\"}]}]",
     OK_AUTO(SHAREGPT), "1 user[text Q] assistant[text |text <tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>] tool[text R] "
     "assistant[text A]; "},
    /* ---- alpaca ---- */
    {"alpaca", NULL, "[{\"instruction\":\"Add\",\"input\":\"1 2\",\"output\":\"3\"},{\"instruction\":\"Hi\",\"input\":\"\",\"output\":\"Yes\"}]",
     OK_AUTO(ALPACA), "1 user[text Add\n1 2] assistant[text 3]; 1 user[text Hi] assistant[text Yes]; "},
    {"alpaca with everything", NULL, "{\"instruction\":\"Q2\",\"input\":null,\"output\":\"A2\",\"system\":\"S\",\"history\":[[\"Q1\",\"A1\"]]}",
     OK_AUTO(ALPACA), "1 system[text S] user[text Q1] assistant[text A1] user[text Q2] assistant[text A2]; "},
    {"alpaca without an answer", NULL, "{\"instruction\":\"Q\",\"output\":null}", OK_AUTO(ALPACA), "1 user[text Q]; "},
    {"alpaca with pictures", NULL, "{\"instruction\":\"<image>Q\",\"input\":\"\",\"output\":\"A\",\"images\":[\"a.png\"]}", OK_AUTO(ALPACA),
     "1 user[image a.png|text Q] assistant[text A]; "},
    {"alpaca, only an input", NULL, "{\"instruction\":\"\",\"input\":\"Q\",\"output\":\"A\"}", OK_AUTO(ALPACA),
     "1 user[text Q] assistant[text A]; "},
    /* ---- ms-swift ---- */
    {"query and response", NULL, "{\"system\":\"S\",\"query\":\"Q2\",\"response\":\"A2\",\"history\":[[\"Q1\",\"A1\"]]}", OK_AUTO(SWIFT),
     "1 system[text S] user[text Q1] assistant[text A1] user[text Q2] assistant[text A2]; "},
    {"query with pictures and no mark", NULL, "{\"query\":\"Q\",\"response\":\"A\",\"images\":[\"a.png\",\"b.png\"]}", OK_AUTO(SWIFT),
     "1 user[image a.png|image b.png|text Q] assistant[text A]; "},
    {"pictures go before the first question of all", NULL, "{\"query\":\"Q2\",\"response\":\"A2\",\"history\":[[\"Q1\",\"A1\"]],\"images\":"
     "[\"a.png\"]}", OK_AUTO(SWIFT), "1 user[image a.png|text Q1] assistant[text A1] user[text Q2] assistant[text A2]; "},
    {"a mark in a later question", NULL, "{\"query\":\"<image>Q2\",\"response\":\"A2\",\"history\":[[\"Q1\",\"A1\"]],\"images\":[\"a.png\"]}",
     OK_AUTO(SWIFT), "1 user[text Q1] assistant[text A1] user[image a.png|text Q2] assistant[text A2]; "},
    {"messages and images with marks", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"},{\"role\":\"assistant\",\"content\":"
     "\"A\"}],\"images\":[{\"bytes\":null,\"path\":\"a.png\"}]}", OK_AUTO(OPENAI), "1 user[image a.png|text Q] assistant[text A]; "},
    {"messages and images without marks", NULL, "{\"messages\":[{\"role\":\"system\",\"content\":\"S\"}," QA "],\"images\":[\"a.png\"]}",
     OK_AUTO(OPENAI), "1 system[text S] user[image a.png|text Q] assistant[text A]; "},
    {"rounds of human and assistant", NULL, "{\"system\":\"S\",\"conversation\":[{\"human\":\"Q1\",\"assistant\":\"A1\"},{\"human\":\"Q2\","
     "\"assistant\":\"A2\"}]}", OK_AUTO(SWIFT), "1 system[text S] user[text Q1] assistant[text A1] user[text Q2] assistant[text A2]; "},
    {"tool_call and tool_response", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"tool_call\",\"content\":"
     "\"{\\\"name\\\":\\\"f\\\",\\\"arguments\\\":{}}\"},{\"role\":\"tool_response\",\"content\":\"R\"},{\"role\":\"assistant\",\"content\":\"A\"}]}",
     OK_AUTO(OPENAI), "1 user[text Q] assistant[text |text <tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>] tool[text R] "
     "assistant[text A]; "},
    {"pre-training as ms-swift has it", NULL, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"D\"}]}", OK_AUTO(OPENAI),
     "1 assistant[text D]; "},
    {"question and answer", NULL, "{\"question\":\"Q\",\"answer\":\"A\",\"image\":\"a.png\"}", OK_AUTO(SWIFT),
     "1 user[image a.png|text Q] assistant[text A]; "},
    {"prompt and completion", NULL, "{\"prompt\":\"Q\",\"completion\":\"A\"}", OK_AUTO(SWIFT), "1 user[text Q] assistant[text A]; "},
    {"asked as swift: messages", NULL, "{\"messages\":[" QA "]}", NB_DATA_SWIFT, NB_DATA_SWIFT, NB_OK, "1 user[text Q] assistant[text A]; "},
    {"video of swift", NULL, "{\"query\":\"<video>Q\",\"response\":\"A\",\"videos\":[[\"a.png\",\"b.png\"]]}", OK_AUTO(SWIFT),
     "1 user[frames a.png b.png|text Q] assistant[text A]; "},
    /* ---- LLaVA ---- */
    {"LLaVA", NULL, "[{\"id\":\"1\",\"image\":\"a.jpg\",\"conversations\":[{\"from\":\"human\",\"value\":\"<image>\\nQ\"},{\"from\":\"gpt\",\"value\":"
     "\"A\"}]},{\"id\":\"2\",\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"gpt\",\"value\":\"A\"}]}]", OK_AUTO(LLAVA),
     "1 user[image a.jpg|text \nQ] assistant[text A]; 1 user[text Q] assistant[text A]; "},
    {"LLaVA, several pictures", NULL, "[{\"image\":[\"a.jpg\",\"b.jpg\"],\"conversations\":[{\"from\":\"human\",\"value\":\"<image><image>Q\"},"
     "{\"from\":\"gpt\",\"value\":\"A\"}]}]", OK_AUTO(LLAVA), "1 user[image a.jpg|image b.jpg|text Q] assistant[text A]; "},
    /* ---- odd spellings, all of which somebody has ---- */
    {"from and value under messages", NULL, "{\"messages\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"gpt\",\"value\":\"A\"}]}", OK_AUTO(SHAREGPT),
     "1 user[text Q] assistant[text A]; "},
    {"role and content under conversations", NULL, "{\"conversations\":[" QA "]}", OK_AUTO(SHAREGPT), "1 user[text Q] assistant[text A]; "},
    {"from user and assistant", NULL, "{\"conversations\":[{\"from\":\"user\",\"value\":\"Q\"},{\"from\":\"assistant\",\"value\":\"A\"}]}",
     OK_AUTO(SHAREGPT), "1 user[text Q] assistant[text A]; "},
    {"roles in capitals", NULL, "{\"messages\":[{\"role\":\"System\",\"content\":\"S\"},{\"role\":\"User\",\"content\":\"Q\"},{\"role\":\"ASSISTANT\","
     "\"content\":\"A\"}]}", OK_AUTO(OPENAI), "1 system[text S] user[text Q] assistant[text A]; "},
    {"developer, model and function", NULL, "{\"messages\":[{\"role\":\"developer\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Q\"},{\"role\":"
     "\"model\",\"content\":\"A\"},{\"role\":\"function\",\"content\":\"R\"}]}", OK_AUTO(OPENAI),
     "1 system[text S] user[text Q] assistant[text A] tool[text R]; "},
    {"parts without a type", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"image\":\"a.png\"},{\"text\":\"Q\"}]}]}", OK_AUTO(OPENAI),
     "1 user[image a.png|text Q]; "},
    {"parts that are texts", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[\"Q1\",\"Q2\"]}]}", OK_AUTO(OPENAI), "1 user[text Q1|text Q2]; "},
    {"image_url that is a text", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":\"a.png\"}]}]}",
     OK_AUTO(OPENAI), "1 user[image a.png]; "},
    {"limits inside image_url", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"a.png\",\"detail\":"
     "\"low\",\"max_pixels\":784}}]}]}", OK_AUTO(OPENAI), "1 user[image a.png max 784]; "},
    {"images that is a text", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"}],\"images\":\"a.png\"}", OK_AUTO(OPENAI),
     "1 user[image a.png|text Q]; "},
    {"image beside messages", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"Q<image>\"}],\"image\":\"a.png\"}", OK_AUTO(OPENAI),
     "1 user[text Q|image a.png]; "},
    {"no pictures in an empty list", NULL, "{\"messages\":[" QA "],\"images\":[],\"videos\":null}", OK_AUTO(OPENAI), "1 user[text Q] assistant[text A]; "},
    {"a mark in the answer", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"},{\"role\":\"assistant\",\"content\":\"<image>A\"}],\"images\":[\"a.png\"]}",
     OK_AUTO(OPENAI), "1 user[text Q] assistant[image a.png|text A]; "},
    {"LLaVA without its picture", NULL, "[{\"image\":\"\",\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"gpt\",\"value\":\"A\"}]},"
     "{\"image\":null,\"conversations\":[{\"from\":\"human\",\"value\":\"Q\"},{\"from\":\"gpt\",\"value\":\"A\"}]}]", OK_AUTO(LLAVA),
     "1 user[text Q] assistant[text A]; 1 user[text Q] assistant[text A]; "},
    {"messages as the text of a list", NULL, "{\"messages\":\"[{\\\"role\\\":\\\"user\\\",\\\"content\\\":\\\"Q\\\"}]\"}", OK_AUTO(OPENAI), "1 user[text Q]; "},
    {"input and output alone", NULL, "{\"input\":\"Q\",\"output\":\"A\"}", OK_AUTO(ALPACA), "1 user[text Q] assistant[text A]; "},
    {"prompt and response", NULL, "{\"prompt\":\"Q\",\"response\":\"A\"}", OK_AUTO(SWIFT), "1 user[text Q] assistant[text A]; "},
    {"members of other tools", NULL, "{\"id\":7,\"messages\":[{\"role\":\"user\",\"content\":\"Q\",\"weight\":1},{\"role\":\"assistant\",\"content\":\"A\","
     "\"refusal\":null,\"reasoning_content\":\"R\"}],\"source\":\"x\"}", OK_AUTO(OPENAI), "1 user[text Q] assistant[text A]; "},
    {"pretty-printed rows after a byte order mark", NULL, "\xef\xbb\xbf{\r\n \"messages\": [" QA "]\r\n}\r\n{\r\n \"messages\": [" QA "]\r\n}\r\n",
     OK_AUTO(OPENAI), "1 user[text Q] assistant[text A]; 4 user[text Q] assistant[text A]; "},
    {"marks without a list are text", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"}]}", OK_AUTO(OPENAI), "1 user[text <image>Q]; "},
    /* ---- text ---- */
    {"text rows", NULL, "{\"text\":\"D1\"}\n{\"text\":\" \\n\"}\n{\"text\":\"D2\",\"url\":\"u\"}\n", OK_AUTO(TEXT),
     "1 assistant[text D1]; 3 assistant[text D2]; "},
    {"paragraphs", "a.txt", "\xef\xbb\xbf\n\nOne\nline two\r\n \t\r\n\n  Two {\"a\n\n\n", OK_AUTO(TEXT),
     "3 assistant[text One\nline two]; 7 assistant[text   Two {\"a]; "},
    {"one document", "a.md", "# One\nand all", OK_AUTO(TEXT), "1 assistant[text # One\nand all]; "},
    {"JSON lines under a text name", "b.txt", "{\"messages\":[" QA "]}\n", OK_AUTO(OPENAI), "1 user[text Q] assistant[text A]; "},
    {"brackets of prose", "c.txt", "[1] is cited\n\n{so} is this", OK_AUTO(TEXT), "1 assistant[text [1] is cited]; 3 assistant[text {so} is this]; "},
    {"text that was asked for", "d.log", "One\n\nTwo", NB_DATA_TEXT, NB_DATA_TEXT, NB_OK, "1 assistant[text One]; 3 assistant[text Two]; "},
    /* ---- refused, and why ---- */
    {"one bracket too many", NULL, "{\"messages\":[[" QA "]]}", BAD(INPUT), "messages[0]: expected a message, found a list of them"},
    {"an object for a list", NULL, "{\"messages\":{\"role\":\"user\",\"content\":\"Q\"}}", BAD(INPUT), "messages: expected a list of messages"},
    {"a text for a list", NULL, "{\"messages\":\"Q\"}", BAD(INPUT), "messages: expected a list of messages"},
    {"the text of half a list", NULL, "{\"messages\":\"[{\"}", BAD(INPUT), "messages: line 1, column 3"},
    {"an object for a content", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":{\"type\":\"text\",\"text\":\"Q\"}}]}", BAD(INPUT),
     "messages[0].content: expected text"},
    {"a speaker without a name", NULL, "{\"messages\":[{\"role\":\"\",\"content\":\"Q\"}]}", BAD(INPUT), "messages[0].role: expected who speaks"},
    {"a speaker that nobody knows", NULL, "{\"conversations\":[{\"from\":\"bing\",\"value\":\"Q\"}]}", BAD(INPUT), "'bing' is not one of human"},
    {"an empty conversation", NULL, "{\"messages\":[]}", BAD(INPUT), "messages: is empty"},
    {"a picture that is null", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"}],\"images\":[null]}", BAD(INPUT), "images[0]: expected the path"},
    {"pictures in a list of lists", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"}],\"images\":[[\"a.png\"]]}", BAD(INPUT),
     "images[0]: expected the path"},
    {"the bytes of a picture", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"}],\"images\":[{\"bytes\":\"iVBORw0=\",\"path\":null}]}",
     BAD(UNSUPPORTED), "images[0]: holds the bytes of a file and no path"},
    {"a mark too few", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"<image>Q\"}],\"images\":[\"a.png\",\"b.png\"]}", BAD(INPUT),
     "messages holds 1 <image> marks, but images holds 2 entries"},
    {"a mark for no picture", NULL, "{\"conversations\":[{\"from\":\"human\",\"value\":\"<image>Q\"}]}", BAD(INPUT),
     "conversations holds 1 <image> marks, but images holds 0 entries"},
    {"pictures in the way of Qwen-VL", NULL, "{\"conversations\":[{\"from\":\"user\",\"value\":\"Picture 1: <img>a.png</img>\\nQ\"}]}", BAD(UNSUPPORTED),
     "conversations[0]: <img>...</img> names a picture as Qwen-VL did"},
    {"no conversation at all", NULL, "{\"story\":\"T\"}", BAD(INPUT), "has no 'messages'"},
    {"a row that is a number", NULL, "5\n", BAD(INPUT), "expected an object with messages"},
    {"sound", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"Q\"}],\"audios\":[\"a.wav\"]}", BAD(UNSUPPORTED), "Qwen2-VL does not hear"},
    {"alpaca without an output column", NULL, "{\"instruction\":\"Q\"}", BAD(INPUT), "line 1: has no 'output'"},
    {"alpaca of numbers", NULL, "{\"instruction\":1,\"output\":\"A\"}", BAD(INPUT), "line 1: instruction: expected text"},
    {"history of texts", NULL, "{\"query\":\"Q\",\"response\":\"A\",\"history\":[\"Q1\"]}", BAD(INPUT), "history[0]: expected a pair"},
    {"history of three", NULL, "{\"query\":\"Q\",\"response\":\"A\",\"history\":[[\"a\",\"b\"],[\"a\",\"b\",\"c\"]]}", BAD(INPUT), "history[1]: expected a pair"},
    {"history is text", NULL, "{\"query\":\"Q\",\"response\":\"A\",\"history\":\"x\"}", BAD(INPUT), "history: expected a list"},
    {"several answers", NULL, "{\"question\":\"Q\",\"answer\":[\"A\"]}", BAD(INPUT), "answer: expected text"},
    {"a round without an answer", NULL, "{\"conversation\":[{\"human\":\"Q\"}]}", BAD(INPUT), "conversation[0]: expected {\"human\""},
    {"text of a list", NULL, "{\"text\":[\"D\"]}", BAD(INPUT), "text: expected text"},
    {"two answers", NULL, "{\"instruction\":\"Q\",\"chosen\":\"A\",\"rejected\":\"B\"}", BAD(UNSUPPORTED), "rejected: this is preference data"},
    {"two answers of swift", NULL, "{\"messages\":[" QA "],\"rejected_response\":\"B\"}", BAD(UNSUPPORTED), "preference data"},
    {"a thumb", NULL, "{\"messages\":[" QA "],\"kto_tag\":true}", BAD(UNSUPPORTED), "kto_tag: this is preference data"},
    {"a thumb of TRL", NULL, "{\"prompt\":\"Q\",\"completion\":\"A\",\"label\":false}", BAD(UNSUPPORTED), "label: this is preference data"},
    {"a list of messages alone", NULL, "[" QA "]", BAD(INPUT), "row 1 (line 1): is a single message"},
    {"boxes to fill in", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":\"Find <ref-object>\"},{\"role\":\"assistant\",\"content\":\"<bbox>\"}],"
     "\"objects\":{\"ref\":[\"a\"],\"bbox\":[[1,2,3,4]]}}", BAD(UNSUPPORTED), "<ref-object> stands for an entry of 'objects'"},
    {"pictures named twice", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"image\":\"a.png\"}]}],\"images\":[\"a.png\"]}",
     BAD(INPUT), "holds 0 <image> marks, but images holds 1"},
    {"bare parts than outnumber the list", NULL, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"},{\"type\":\"image\"}]}],"
     "\"images\":[\"a.png\"]}", BAD(INPUT), "holds 2 <image> marks, but images holds 1"},
    {"a picture for nobody", NULL, "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\"}],\"images\":[\"a.png\"]}", BAD(INPUT),
     "neither a mark for them nor a message of the user"},
    {"Parquet", "x.parquet", "PAR1xxxxPAR1", BAD(UNSUPPORTED), "Parquet"},
    {"Arrow", "x.arrow", "ARROW1xxxx", BAD(UNSUPPORTED), "Arrow"},
    {"a table of something else", "x.tsv", "index\tname\n0\tQ\n", BAD(UNSUPPORTED), "is a table, but not a benchmark's"},
    {"commas", "x.csv", "index,question\n0,Q\n", BAD(UNSUPPORTED), "is a table, but not a benchmark's"},
    /* ---- benchmark tables (the base64 of pictures is not looked at here) ---- */
    {"a table", "x.tsv", "index\tquestion\tanswer\n0\tQ\tA\n1\tR\t\n", OK_AUTO(TSV), "2 user[text Q] assistant[text A]; 3 user[text R]; "},
    {"a table under another name", "x.data", "\xef\xbb\xbfquestion\tindex\r\nQ\t1\r\n", OK_AUTO(TSV), "2 user[text Q]; "},
    {"options and a hint", "x.tsv", "index\thint\tquestion\tA\tB\tC\tanswer\n7\tH\t\"Q\n\"\"x\"\"\"\tyes\t\tno\tC\n8\tnan\tQ\tyes\tno\t\tA\n",
     OK_AUTO(TSV), "2 user[text Hint: H\nQuestion: Q\n\"x\"\nOptions:\nA. yes\nC. no\nPlease select the correct answer from the options "
     "above.] assistant[text C]; 4 user[text Question: Q\nOptions:\nA. yes\nB. no\nPlease select the correct answer from the options "
     "above.] assistant[text A]; "},
    {"a hint alone, and a list of answers", "x.tsv", "index\thint\tquestion\tanswer\n7\tH\tQ\t\"['it''s', 'b']\"\n8\t\tQ\t\"[\"\"it's\"\", 'b']\"\n",
     OK_AUTO(TSV), "2 user[text Hint: H\nQuestion: Q] assistant[text ['it''s', 'b']]; 3 user[text Q] assistant[text it's]; "},
    {"pictures of a table", "x.tsv", "index\timage\timage_path\tquestion\n0\t" B64 "\t\tQ\n1\t0\tx.png\tR\n2\t['ab','cd']\t\tS\n3\t\t['a.png','b.png']\tT\n"
     "4\t\tc.png\tU\n", OK_AUTO(TSV), "2 user[image data:image;base64," B64 "|text Q]; 3 user[image data:image;base64," B64 "|text R]; "
     "4 user[image data:image;base64,ab|image data:image;base64,cd|text S]; 5 user[image a.png|image b.png|text T]; "
     "6 user[image c.png|text U]; "},
    {"asked as a table", "x.tsv", "index\tname\n0\tQ\n", NB_DATA_TSV, NB_DATA_AUTO, NB_ERR_INPUT, "no column 'question'"},
    {"a table without an index", "x.tsv", "id\tquestion\n0\tQ\n", BAD(INPUT), "no column 'index'"},
    {"a table's picture elsewhere", "x.tsv", "index\timage\tquestion\n0\t5\tQ\n", BAD(INPUT), "line 2 (index 0): the image cell '5' is not the index"},
    {"a table's picture nowhere", "x.tsv", "index\timage\tquestion\n0\t1\tQ\n1\t\tQ\n", BAD(INPUT), "the row at line 3, which has none"},
    {"a table's circle of pictures", "x.tsv", "index\timage\tquestion\n0\t1\tQ\n1\t0\tQ\n", BAD(INPUT), "is not the index"},
    {"a table in Latin-1", "x.tsv", "index\tquestion\n0\tcaf\xe9\n", BAD(INPUT), "line 2 (index 0): the column 'question' is not UTF-8"},
    {"a question that is not there", "x.tsv", "index\tquestion\n0\t\n", BAD(INPUT), "the question is empty"},
    {"a quote that never ends", "x.tsv", "index\tquestion\n0\t\"Q\n", BAD(INPUT), "never closed"},
    {"prose as JSON", "x.jsonl", "Hello\n", BAD(INPUT), "line 1, column 1: expected a value"},
    {"alpaca rows among messages", NULL, "{\"messages\":[" QA "]}\n{\"instruction\":\"Q\",\"output\":\"A\"}", BAD(INPUT), "line 2: has no 'messages'"},
    {"a text file with a NUL", "n.txt", NULL, BAD(INPUT), "NUL"},
    {"Latin-1", "l.txt", "caf\xe9", BAD(INPUT), "line 1: a paragraph that is not UTF-8"},
    {"an empty text file", "e.txt", " \n\n", BAD(INPUT), "holds no rows"},
};

/* All rows of a file as "LINE CHAT; ".  The first failure ends it. */
static nb_status read_file(const char *path, const nb_dataset_options *options, nb_buf *out, nb_data_form *form, nb_error *err)
{
    nb_dataset *d;
    bool        end = false;
    nb_buf_clear(out);
    nb_buf_str(out, "");
    NB_TRY(nb_dataset_open(&d, path, options, err));
    nb_status status = NB_OK;
    while (!status && !end) {
        nb_chat chat;
        char    where[256];
        status = nb_dataset_next(d, &chat, where, &end, err);
        if (status || end) break;
        nb_buf_printf(out, "%zu ", nb_dataset_line(d));
        describe(&chat, out);
        nb_buf_str(out, "; ");
        nb_chat_free(&chat);
    }
    *form = nb_dataset_form(d);
    nb_dataset_close(d);
    return status;
}

static const char *put_file(const char *name, const char *text)
{
    const char *path = write_file(name, text ? text : "");
    nb_error    err;
    if (!text) OK(nb_file_write_atomic(path, "a\0b", 3, &err), &err);
    return path;
}

static void every_form_means_what_it_says(void **state)
{
    (void)state;
    nb_buf text = {0};
    for (size_t i = 0; i < NB_COUNT(cases); i++) {
        const form_case   *c = &cases[i];
        nb_error           err = {0};
        nb_data_form       form = NB_DATA_AUTO;
        nb_dataset_options options = {.form = c->asked};
        const char        *path = put_file(c->file ? c->file : "rows.json", c->text);
        nb_status          status = read_file(path, &options, &text, &form, &err);
        if (status != c->status) fail_msg("%s: status %d (%s), expected %d", c->name, status, err.text, c->status);
        if (status && (!strstr(err.text, c->want) || !strstr(err.text, path)))
            fail_msg("%s: '%s', expected '%s' and the file", c->name, err.text, c->want);
        if (!status && strcmp(text.data, c->want)) fail_msg("%s: '%s', expected '%s'", c->name, text.data, c->want);
        if (!status && form != c->found)
            fail_msg("%s: found %s, expected %s", c->name, nb_data_form_name(form), nb_data_form_name(c->found));
        size_t rows = 0, want = 0;
        if (!status) { /* what is counted is what is read */
            OK(nb_dataset_count(&rows, path, &options, &err), &err);
            for (const char *p = c->want; (p = strstr(p, "]; ")); p++) want++;
            assert_int_equal(rows, want);
        }
    }
    nb_buf_free(&text);
}

/* ---- LLaMA-Factory -------------------------------------------------------------------------------------------------------- */

/* Every file of its data folder: read whole, or refused for a reason. */
static void llamafactory_files(void **state)
{
    (void)state;
    NEEDS_DATA("llamafactory/dataset_info.json");
    static const struct {
        const char  *file;
        nb_data_form form;
        int          rows;
        const char  *first; /* beginning of the first chat */
    } files[] = {
        {"identity.json", NB_DATA_ALPACA, 46, "user[text hi] assistant[text Hello! I am {{name}}, an AI assistant developed by"},
        {"alpaca_en_demo.json", NB_DATA_ALPACA, 500, "user[text Describe a process of making crepes.] assistant[text Making crepes"},
        {"alpaca_zh_demo.json", NB_DATA_ALPACA, 500, "user[text 识别并解释给定列表中的两个科学理论：细胞理论和日心说。] assistant[text 细胞"},
        {"glaive_toolcall_en_demo.json", NB_DATA_SHAREGPT, 150, "user[text Hi, I have some ingredients"},
        {"glaive_toolcall_zh_demo.json", NB_DATA_SHAREGPT, 150, "user[text 我需要为John Doe生成一张发票"},
        {"mllm_demo.json", NB_DATA_SHAREGPT, 3,
         "user[image mllm_demo_data/1.jpg|text Who are they?] assistant[text They're Kane and Gretzka from Bayern Munich.] "
         "user[text What are they doing?|image mllm_demo_data/1.jpg] assistant[text They are celebrating on the soccer field.]"},
        {"mllm_video_demo.json", NB_DATA_SHAREGPT, 2,
         "user[video mllm_demo_data/1.mp4|text Why is this video funny?] assistant[text Because a baby is reading, and he is so"},
        {"c4_demo.jsonl", NB_DATA_TEXT, 150, "assistant[text Don’t think you need all the bells and whistles? No problem."},
    };
    nb_buf text = {0};
    for (size_t i = 0; i < NB_COUNT(files); i++) {
        char               path[1200];
        nb_error           err;
        nb_data_form       form;
        size_t             rows;
        nb_dataset_options options = {.need_answer = true};
        snprintf(path, sizeof path, "%s/%s", unit_data("llamafactory"), files[i].file);
        OK(read_file(path, &options, &text, &form, &err), &err);
        assert_int_equal(form, files[i].form);
        OK(nb_dataset_count(&rows, path, &options, &err), &err);
        assert_int_equal(rows, files[i].rows);
        const char *chat = strchr(text.data, ' ') + 1;
        if (strncmp(chat, files[i].first, strlen(files[i].first))) fail_msg("%s begins with %.300s", files[i].file, chat);
    }
    nb_buf_free(&text);
}

static const char *text_of(const cJSON *object, const char *key, const char *otherwise)
{
    const cJSON *v = nb_json_find(object, key);
    return v ? v->valuestring : otherwise;
}

static void add_text(cJSON *object, const char *key, const char *text)
{
    if (key) assert_non_null(cJSON_AddStringToObject(object, key, text));
}

/* A row in the words of an entry, by its rules in DATA_FORMAT.md: once columns are given, unnamed ones do not exist. */
static cJSON *row_for(const cJSON *entry)
{
    const cJSON *columns = nb_json_find(entry, "columns"), *tags = nb_json_find(entry, "tags");
    cJSON       *row = cJSON_CreateObject();
    if (!strcmp(text_of(entry, "formatting", "alpaca"), "sharegpt")) {
        const char *const who[] = {text_of(tags, "user_tag", "human"), text_of(tags, "assistant_tag", "gpt")};
        bool              images = nb_json_find(columns, "images"), videos = nb_json_find(columns, "videos");
        cJSON            *list = cJSON_AddArrayToObject(row, text_of(columns, "messages", "conversations"));
        for (int i = 0; i < 2; i++) {
            cJSON *m = cJSON_CreateObject();
            add_text(m, text_of(tags, "role_tag", "from"), who[i]);
            add_text(m, text_of(tags, "content_tag", "value"), i ? "A" : images ? "<image>Q" : videos ? "<video>Q" : "Q");
            cJSON_AddItemToArray(list, m);
        }
        if (images) cJSON_AddItemToArray(cJSON_AddArrayToObject(row, text_of(columns, "images", "")), cJSON_CreateString("a.png"));
        if (videos) cJSON_AddItemToArray(cJSON_AddArrayToObject(row, text_of(columns, "videos", "")), cJSON_CreateString("a.mp4"));
        if (nb_json_find(columns, "audios"))
            cJSON_AddItemToArray(cJSON_AddArrayToObject(row, text_of(columns, "audios", "")), cJSON_CreateString("a.wav"));
    } else {
        add_text(row, text_of(columns, "prompt", columns ? NULL : "instruction"), "Q");
        add_text(row, text_of(columns, "query", columns ? NULL : "input"), "");
        add_text(row, text_of(columns, "response", columns ? NULL : "output"), "A");
    }
    add_text(row, text_of(columns, "system", NULL), "S");
    add_text(row, text_of(columns, "tools", NULL), "[]");
    return row;
}

static void every_entry_of_dataset_info(void **state)
{
    (void)state;
    NEEDS_DATA("llamafactory/dataset_info.json");
    nb_error           err;
    cJSON             *info;
    nb_buf             text = {0}, row_text = {0};
    nb_dataset_options options = {0};
    int                read = 0, preference = 0, sound = 0;
    OK(nb_json_file(&info, unit_data("llamafactory/dataset_info.json"), 1 << 20, &err), &err);
    for (const cJSON *e = info->child; e; e = e->next) {
        cJSON *one = cJSON_CreateObject(), *copy = cJSON_Duplicate(e, true), *row = row_for(e);
        cJSON_DeleteItemFromObject(copy, "file_name");
        cJSON_AddStringToObject(copy, "file_name", "entry.json");
        cJSON_AddItemToObject(one, "it", copy);
        nb_buf_clear(&row_text);
        nb_json_print(&row_text, row, NB_JSON_COMPACT);
        char path[160];
        snprintf(path, sizeof path, "%s", write_file("entry.json", row_text.data));
        nb_buf_clear(&row_text);
        nb_json_print(&row_text, one, NB_JSON_COMPACT);
        write_file("dataset_info.json", row_text.data);
        const cJSON *columns = nb_json_find(e, "columns");
        bool         document = columns && !nb_json_find(columns, "response") && nb_json_find(columns, "prompt");
        char         want[200];
        snprintf(want, sizeof want, "1 %s%s; ", nb_json_find(columns, "system") ? "system[text S] " : "",
                 document                         ? "assistant[text Q]"
                 : nb_json_find(columns, "images") ? "user[image a.png|text Q] assistant[text A]"
                 : nb_json_find(columns, "videos") ? "user[video a.mp4|text Q] assistant[text A]"
                                                   : "user[text Q] assistant[text A]");
        nb_data_form form;
        nb_status    status = read_file(path, &options, &text, &form, &err);
        if (cJSON_IsTrue(nb_json_find(e, "ranking")) || nb_json_find(columns, "kto_tag")) {
            if (status != NB_ERR_UNSUPPORTED || !strstr(err.text, "preference data")) fail_msg("%s: %s", e->string, err.text);
            preference++;
        } else if (nb_json_find(columns, "audios")) {
            if (status != NB_ERR_UNSUPPORTED || !strstr(err.text, "does not hear")) fail_msg("%s: %s", e->string, err.text);
            sound++;
        } else {
            if (status || strcmp(text.data, want))
                fail_msg("%s: status %d, '%s', expected '%s'", e->string, status, status ? err.text : text.data, want);
            read++;
        }
        cJSON_Delete(one);
        cJSON_Delete(row);
    }
    cJSON_Delete(info);
    unlink(write_file("dataset_info.json", ""));
    assert_int_equal(preference, 15);
    assert_int_equal(sound, 2);
    assert_int_equal(read, 87);
    nb_buf_free(&text);
    nb_buf_free(&row_text);
}

/* Every column of both formats renamed at once; a file that was packed after it was listed. */
static void columns_are_renamed(void **state)
{
    (void)state;
    nb_buf             text = {0};
    nb_error           err;
    nb_data_form       form;
    nb_dataset_options options = {0};
    char               path[160];
    write_file("dataset_info.json", "{\"a\": {\"file_name\": \"m.json\", \"columns\": {\"prompt\": \"p\", \"query\": \"q\", \"response\": \"r\","
                                    "\"history\": \"h\", \"system\": \"s\", \"tools\": \"t\", \"images\": \"i\", \"videos\": \"v\"}}}");
    snprintf(path, sizeof path, "%s", write_file("m.json.gz",
             "{\"p\":\"<image>P\",\"q\":\"<video>Q\",\"r\":\"R\",\"h\":[[\"H1\",\"H2\"]],\"s\":\"S\",\"t\":\"[{\\\"name\\\":\\\"f\\\"}]\","
             "\"i\":[\"a.png\"],\"v\":[[\"b.png\",\"c.png\"]],\"instruction\":\"no\",\"output\":\"no\",\"images\":[\"no.png\"]}"));
    OK(read_file(path, &options, &text, &form, &err), &err);
    assert_int_equal(form, NB_DATA_ALPACA);
    assert_string_equal(text.data, "1 system[text S] user[text H1] assistant[text H2] user[image a.png|text P\n|frames b.png c.png|text Q] "
                                   "assistant[text R] {[{\"type\": \"function\", \"function\": {\"name\": \"f\"}}]}; ");
    options.form = NB_DATA_TEXT; /* not one of LLaMA-Factory's forms: its description is not asked */
    FAILS(read_file(path, &options, &text, &form, &err), NB_ERR_INPUT, "line 1: has no 'text'", &err);
    options.form = NB_DATA_SHAREGPT;
    FAILS(read_file(path, &options, &text, &form, &err), NB_ERR_ARGUMENT, "form is alpaca, not sharegpt", &err);
    write_file("dataset_info.json", "{\"a\": {\"file_name\": \"m.json\", \"columns\": {\"messages\": \"p\"}}}");
    options.form = NB_DATA_AUTO;
    FAILS(read_file(path, &options, &text, &form, &err), NB_ERR_INPUT, "\"formatting\": \"sharegpt\"", &err);
    unlink(write_file("dataset_info.json", ""));
    nb_buf_free(&text);
}

/* ---- going on ------------------------------------------------------------------------------------------------------------- */

static void bad_rows_do_not_end_the_walk(void **state)
{
    (void)state;
    static const struct { const char *name, *text, *want; } files[] = {
        {"w.jsonl", "{\"messages\":\n{\"messages\":[" QA "]}\n{\"messages\":[]}\n{\"messages\":[" QA "]}\nx\n", "! "},
        {"w.jsonl", "{\"messages\":}\n{\"messages\":[" QA "]}\n{\"messages\":[]}\n{\"messages\":[" QA "]}\nx\n", "! 2 ! 4 ! "},
        {"w.json", "[{\"messages\":[" QA "]},\n{\"messages\":3},\n{\"messages\"},\n{\"messages\":[" QA "]}]", "1 ! ! 4 "},
        {"w.json", "[{\"messages\":[" QA "]},\n{\"messages\":\"3\n},\n{\"messages\":[" QA "]}]", "1 lost"},
        {"w.txt", "One\n\ncaf\xe9\n\nThree\n", "1 ! 5 "},
    };
    for (size_t i = 0; i < NB_COUNT(files); i++) {
        nb_error           err;
        nb_dataset        *d;
        nb_dataset_options options = {0};
        nb_buf             got = {0};
        bool               end = false;
        size_t             rows = 0;
        nb_buf_str(&got, "");
        OK(nb_dataset_open(&d, write_file(files[i].name, files[i].text), &options, &err), &err);
        while (rows < 10) {
            nb_chat   chat;
            char      where[256];
            nb_status status = nb_dataset_next(d, &chat, where, &end, &err);
            nb_chat_free(&chat);
            if (end) break;
            assert_int_equal(nb_dataset_rows(d), ++rows);
            if (!status) nb_buf_printf(&got, "%zu ", nb_dataset_line(d));
            if (!status) continue;
            bool more = nb_dataset_resume(d);
            nb_buf_str(&got, more ? "! " : "lost");
            if (!more) break;
        }
        if (strcmp(got.data, files[i].want)) fail_msg("%s: '%s', expected '%s'", files[i].text, got.data, files[i].want);
        nb_dataset_close(d);
        nb_buf_free(&got);
    }
}

/* 100,000 marks and as many pictures in one row: the time is that of reading it, not its square. */
static void many_marks(void **state)
{
    (void)state;
    enum { MARKS = 100000 };
    nb_buf             row = {0};
    nb_error           err;
    nb_dataset        *d;
    nb_chat            chat;
    nb_dataset_options options = {0};
    char               where[256];
    bool               end;
    nb_buf_str(&row, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    for (int i = 0; i < MARKS; i++) nb_buf_str(&row, "<image>x");
    nb_buf_str(&row, "\"}],\"images\":[");
    for (int i = 0; i < MARKS; i++) nb_buf_printf(&row, "%s\"%d\"", i ? "," : "", i);
    nb_buf_str(&row, "]}\n");
    clock_t begin = clock(); /* of the CPU: the machine may be busy */
    OK(nb_dataset_open(&d, put_file("many.jsonl", row.data), &options, &err), &err);
    OK(nb_dataset_next(d, &chat, where, &end, &err), &err);
    assert_int_equal(chat.messages[0].count, 2 * MARKS);
    assert_string_equal(chat.messages[0].parts[2 * MARKS - 2].text, "99999");
    double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
#ifdef __SANITIZE_ADDRESS__
    seconds /= 5;
#endif
    if (!(seconds < 8)) fail_msg("%.1f s", seconds); /* the square takes half a minute */
    nb_chat_free(&chat);
    nb_dataset_close(d);
    nb_buf_free(&row);
}

static void form_names(void **state)
{
    (void)state;
    nb_buf       all = {0};
    nb_error     err;
    nb_data_form form;
    for (int i = 0; i <= NB_DATA_TSV; i++) {
        nb_buf_printf(&all, "%s%s", i ? "|" : "", nb_data_form_name((nb_data_form)i));
        OK(nb_data_form_parse(&form, nb_data_form_name((nb_data_form)i), &err), &err);
        assert_int_equal(form, i);
    }
    assert_string_equal(all.data, NB_DATA_FORMS);
    nb_buf_free(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_form_means_what_it_says), cmocka_unit_test(llamafactory_files),
        cmocka_unit_test(every_entry_of_dataset_info),   cmocka_unit_test(columns_are_renamed),
        cmocka_unit_test(bad_rows_do_not_end_the_walk),  cmocka_unit_test(form_names),
        cmocka_unit_test(many_marks),
    };
    return cmocka_run_group_tests(tests, NULL, clean_up);
}
