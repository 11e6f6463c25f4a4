/* badinput_data.h - cases of bad pictures, conversations, benchmark tables, flags and places to write to. */
#ifndef NB_BADINPUT_DATA_H
#define NB_BADINPUT_DATA_H

#include "badinput.h"

/* ---- pictures -------------------------------------------------------------------------------------------------------- */

#define PNG_1X1 "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR42mM4AQAAygDJNEIn8wAAAABJRU5ErkJggg=="
#define PNG_8X2000                                                                                                               \
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAfQCAAAAADarkGbAAAAQElEQVR42u3GMQ0AAAgDsIF/YcjiQAVJe7UmpyMiIiIiIiIiIiIiIiIiIiIiIiIiIiIi"    \
    "IiIiIiIiIiIiIiIij7OobBBoSEAHHAAAAABJRU5ErkJggg=="
#define PNG_65535X65535 "iVBORw0KGgoAAAANSUhEUgAA//8AAP//CAIAAAA5Z04HAAAADElEQVR4nGNgoD0AAABkAAGGZDw1AAAAAElFTkSuQmCC"
#define PNG_0X8 "iVBORw0KGgoAAAANSUhEUgAAAAAAAAAICAIAAABYumkoAAAADElEQVR4nGNgoD0AAABkAAGGZDw1AAAAAElFTkSuQmCC"
#define JPEG_56X56                                                                                                               \
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAFA3PEY8MlBGQUZaVVBfeMiCeG5uePWvuZHI////////////////////////////////////////////////////wAAL" \
    "CAA4ADgBAREA/8QAFwABAQEBAAAAAAAAAAAAAAAAAwIEAf/EACcQAQABAwMCBgMBAAAAAAAAAAECABEhAxIxQVFhcYGRofAEscFC/9oACAEBAAA/AM8IlqWMTsVc" \
    "YmaWMfCqccBeg1tSQ5uF+Rye1j99c82BZTTfJbd29XEwUkSrgYpYlFrTCW24Nrl+vr04Ee9qyylvTsffvxi1diZauBjlpYxq4njXdRIlt22/+u33r9az6momnEkR" \
    "dRvdQbZ9qILt6uJnGKSBxSxKq+2N2h1Zki7u2vsHXwVzbnuuMZ5S32XnN/O6/wBqgpImauI2y0od1qdWRCIN+cWbfJWXUY3bxFb8rc+f2HlUxMoOKSJ50kTOGkgY" \
    "KqUtkFOXBfq0H5E3dIje5a/8fl9bNZ4lXEpYlXEzSRFDiolqEQlGBJC+eQepzc8uKz67Gc7gkkFVxxUxHvVxHjDSxGriI2M3r//Z"

#define LOOK "run @model -p Hi -n 2 --image @dir/x"
#define DEMO_PNG {LINK, "x", "@demo/calib/images/chat-0000-0.png"}

static const bad_case picture_cases[] = {
    {"picture: PNG cut in the header", 5, {"@dir/x", "PNG"}, {DEMO_PNG, {RESIZE, "x", .at = 20}}, LOOK},
    {"picture: PNG cut in the data", 5, {"@dir/x", "PNG", "cut"}, {DEMO_PNG, {RESIZE, "x", .at = 400}}, LOOK},
    {"picture: PNG without its end", 5, {"@dir/x", "PNG"}, {DEMO_PNG, {RESIZE, "x", .at = -20}}, LOOK},
    {"picture: PNG of 65535 x 65535", 5, {"@dir/x", "65535 x 65535"}, {{PICTURE, "x", PNG_65535X65535}}, LOOK},
    {"picture: PNG of 0 x 8", 5, {"@dir/x"}, {{PICTURE, "x", PNG_0X8}}, LOOK},
    {"picture: PNG of 8 x 2000", 5, {"@dir/x", "200"}, {{PICTURE, "x", PNG_8X2000}}, LOOK},
    {"picture: PNG of one pixel", 0, .changes = {{PICTURE, "x", PNG_1X1}}, .run = LOOK},
    {"picture: JPEG", 0, .changes = {{PICTURE, "x", JPEG_56X56}}, .run = LOOK},
    {"picture: JPEG cut in the header", 5, {"@dir/x", "JPEG"}, {{PICTURE, "x", JPEG_56X56}, {RESIZE, "x", .at = 60}}, LOOK},
    {"picture: JPEG cut in the data", 5, {"@dir/x", "JPEG"}, {{PICTURE, "x", JPEG_56X56}, {RESIZE, "x", .at = 300}}, LOOK},
    {"picture: empty", 5, {"@dir/x", "empty"}, {{TEXT, "x", ""}}, LOOK},
    {"picture: text", 5, {"@dir/x", "not a"}, {{TEXT, "x", "This is no picture.\n"}}, LOOK},
    {"picture: HTML", 5, {"@dir/x", "HTML"}, {{TEXT, "x", "<!DOCTYPE html><html></html>"}}, LOOK},
    {"picture: missing", 5, {"@dir/x", "no such file"}, .run = LOOK},
    {"picture: a folder", 5, {"@dir/x", "folder"}, {{FOLDER, "x"}}, LOOK},
    {"picture: a pipe", 5, {"@dir/x", "FIFO"}, {{PIPE, "x"}}, LOOK},
    {"picture: a device", 5, {"/dev/zero"}, .run = "run @model -p Hi --image /dev/zero"},
    {"picture: data URL without base64", 5, {"data URL (18 characters)", "base64"}, .run = "run @model -p Hi --image data:image/png,abc"},
    {"picture: data URL of bad base64", 5, {"data URL (30 characters)", "character 5"}, .run = "run @model -p Hi --image data:image/png;base64,iVBO*w0K"},
    {"picture: data URL cut", 5, {"data URL (27 characters)", "cut short"}, .run = "run @model -p Hi --image data:image/png;base64,iVBOR"},
    {"picture: data URL of half a PNG", 5, {"data URL (46 characters)", "PNG"}, .run = "run @model -p Hi --image data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA"},
    {"picture: http, offline", 2, {"http://example.com/x.png", "offline"}, .run = "run @model -p Hi --offline --image http://example.com/x.png"},
    {"picture: http to this machine", 5, {"http://127.0.0.1:9/x.png", "not a public address"}, .run = "run @model -p Hi --image http://127.0.0.1:9/x.png"},
    {"picture: ftp", 5, {"ftp://"}, .run = "run @model -p Hi --image ftp://example.com/x.png"},
    {"picture: limits reversed", 2, {"--min-pixels"}, .run = "run @model -p Hi --min-pixels 5000 --max-pixels 4000"},
    {"video: one of two frames is missing", 5, {"@dir/gone.png"}, {DEMO_PNG}, "run @model -p Hi --video @dir/x,@dir/gone.png"},
    {"video: an empty entry", 2, {"--video"}, {DEMO_PNG}, "run @model -p Hi --video @dir/x,,@dir/x"},
    {"video: a film", 5, {"a.mp4"}, .run = "run @model -p Hi --video a.mp4"},
};

/* ---- conversations ----------------------------------------------------------------------------------------------------- */

#define ASK "run @model -n 2 --messages @dir/rows.jsonl"
#define CALIBRATE "quantize @model --out @dir/out --method gptq --samples 4 --data @dir/rows.jsonl"
#define COMPARE "eval @model --data @dir/rows.jsonl"
#define ROWS(text) {{TEXT, "rows.jsonl", text}}
#define USER "{\"role\": \"user\", \"content\": \"Hi\"}"
#define GOOD "{\"messages\": [" USER ", {\"role\": \"assistant\", \"content\": \"Hello\"}]}\n"
#define HERE "@dir/rows.jsonl"

static const bad_case row_cases[] = {
    {"messages: no file", 5, {HERE, "no such file"}, .run = ASK},
    {"messages: empty file", 5, {HERE, "no conversation"}, ROWS(""), ASK},
    {"messages: not JSON", 5, {HERE, "line 1"}, ROWS("hello\n"), ASK},
    {"messages: a broken row in the middle", 5, {HERE, "line 2, column"}, ROWS(GOOD "{\"messages\": [" USER "}\n" GOOD), ASK},
    {"messages: a row without messages", 5, {HERE " line 2", "messages"}, ROWS(GOOD "{\"prompt\": \"Hi\"}\n"), ASK},
    {"messages: a row that is a number", 5, {HERE " line 2"}, ROWS(GOOD "3\n"), ASK},
    {"messages: no message", 5, {HERE " line 1", "messages"}, ROWS("{\"messages\": []}\n"), ASK},
    {"messages: content is null", 5, {HERE " line 1", "messages[0].content is null"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": null}]}\n"), ASK},
    {"messages: content is a number", 5, {HERE " line 1", "messages[0].content"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": 7}]}\n"), ASK},
    {"messages: no role", 5, {HERE " line 1", "messages[0].role is missing"}, ROWS("{\"messages\": [{\"content\": \"Hi\"}]}\n"), ASK},
    {"messages: role is a number", 5, {HERE " line 1", "messages[0].role"}, ROWS("{\"messages\": [{\"role\": 1, \"content\": \"Hi\"}]}\n"), ASK},
    {"messages: a part of unknown type", 5, {HERE " line 1", "content[0]", "audio"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"audio\", \"audio\": \"x\"}]}]}\n"), ASK},
    {"messages: image_url is an array", 5, {HERE " line 1", "image_url"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": []}]}]}\n"), ASK},
    {"messages: a missing picture", 5, {HERE " line 2", "@dir/gone.png"}, ROWS(GOOD "{\"messages\": [{\"role\": \"user\", \"content\": [{\"type\": \"image\", \"image\": \"gone.png\"}]}]}\n"), ASK},
    {"messages: tools are no list", 5, {HERE " line 1", "tools"}, ROWS("{\"messages\": [" USER "], \"tools\": 3}\n"), ASK},
    {"messages: half a surrogate", 5, {HERE, "line 1, column"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": \"\\ud800\"}]}\n"), ASK},
    {"messages: gzip", 5, {HERE, "gzip"}, ROWS("\x1f\x8b\x08"), ASK},
    {"messages: and a prompt", 2, {"--messages"}, ROWS(GOOD), ASK " -p Hi"},
    {"data: no file", 5, {HERE, "no such file"}, .run = CALIBRATE},
    {"data: a folder", 5, {HERE, "folder"}, {{FOLDER, "rows.jsonl"}}, CALIBRATE},
    {"data: empty file", 5, {HERE, "no rows"}, ROWS(""), CALIBRATE},
    {"data: an empty list", 5, {HERE, "no rows"}, ROWS("[]"), CALIBRATE},
    {"data: not JSON", 5, {HERE, "line 1"}, ROWS("id,question,answer\n1,a,b\n"), CALIBRATE},
    {"data: a broken row in the middle", 5, {HERE, "line 3, column"}, ROWS(GOOD GOOD "{\"messages\": [" USER "}\n" GOOD), CALIBRATE},
    {"data: a list cut short", 5, {HERE, "line"}, ROWS("[" GOOD "," GOOD), CALIBRATE},
    {"data: no messages", 5, {HERE, "line 2", "messages"}, ROWS(GOOD "{\"text\": \"Hi\"}\n"), CALIBRATE},
    {"data: messages is empty", 5, {HERE, "line 1", "empty"}, ROWS("{\"messages\": []}\n" GOOD), CALIBRATE},
    {"data: alpaca without an output", 5, {HERE, "line 1", "has no 'output'"}, ROWS("{\"instruction\": \"Hi\", \"input\": \"\"}\n"), CALIBRATE},
    {"data: two answers", 5, {HERE, "line 1", "preference"}, ROWS("{\"instruction\": \"Hi\", \"chosen\": \"a\", \"rejected\": \"b\"}\n"), CALIBRATE},
    {"data: content is null", 5, {HERE, "line 1", "messages[0].content is missing or null"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": null}]}\n"), CALIBRATE},
    {"data: sharegpt by nobody known", 5, {HERE, "line 1", "'narrator'"}, ROWS("{\"conversations\": [{\"from\": \"narrator\", \"value\": \"Hi\"}]}\n"), CALIBRATE},
    {"data: more marks than pictures", 5, {HERE, "line 1", "holds 2 <image> marks"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": \"<image><image>Hi\"}], \"images\": [\"a.png\"]}\n"), CALIBRATE},
    {"data: fewer marks than pictures", 5, {HERE, "line 1", "holds 1 <image> mark"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": \"<image>Hi\"}], \"images\": [\"a.png\", \"b.png\"]}\n"), CALIBRATE},
    {"data: pictures are numbers", 5, {HERE, "line 1", "images"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": \"<image>Hi\"}], \"images\": [1]}\n"), CALIBRATE},
    {"data: a missing picture", 5, {HERE, "line 1", "@dir/a.png"}, ROWS("{\"messages\": [{\"role\": \"user\", \"content\": \"<image>Hi\"}, {\"role\": \"assistant\", \"content\": \"x\"}], \"images\": [\"a.png\"]}\n"), CALIBRATE},
    {"data: a damaged picture", 5, {HERE, "line 1", "x: damaged PNG"}, {{TEXT, "rows.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"<image>Hi\"}], \"images\": [\"x\"]}\n"}, DEMO_PNG, {RESIZE, "x", .at = 400}}, CALIBRATE},
    {"data: every row is too long", 5, {HERE, "no row is left"}, ROWS(GOOD), CALIBRATE " --seq-len 3"},
    {"data: all rows are skipped", 5, {HERE, "no row is left"}, ROWS(GOOD), CALIBRATE " --skip 5"},
    {"data: no weight on what is there", 2, {HERE, "weight 0"}, ROWS(GOOD), CALIBRATE " --modality-weights 0:1"},
    {"data: dataset_info broken", 5, {"@dir/dataset_info.json: line 1, column 2"}, {{TEXT, "rows.jsonl", GOOD}, {TEXT, "dataset_info.json", "{x"}}, CALIBRATE},
    {"data: dataset_info of other files", 5, {"@dir/info.json", "rows.jsonl"}, {{TEXT, "rows.jsonl", GOOD}, {TEXT, "info.json", "{\"a\": {\"file_name\": \"b.json\"}}"}}, CALIBRATE " --dataset-info @dir/info.json"},
    {"data: dataset_info says preference", 5, {"dataset_info.json", "preference"}, {{TEXT, "rows.jsonl", GOOD}, {TEXT, "dataset_info.json", "{\"a\": {\"file_name\": \"rows.jsonl\", \"formatting\": \"sharegpt\", \"ranking\": true}}"}}, CALIBRATE},
    {"eval data: no answer", 5, {HERE, "line 1", "answer"}, ROWS("{\"messages\": [" USER "]}\n"), COMPARE},
    {"eval data: empty file", 5, {HERE, "no rows"}, ROWS(""), COMPARE},
    {"eval data: no file", 5, {HERE}, .run = COMPARE},
};

/* ---- benchmarks, text, reference --------------------------------------------------------------------------------------- */

#define BENCHMARK "eval @model -n 2 --tasks x_docvqa:@dir/t.tsv"
#define TABLE(text) {{TEXT, "t.tsv", text}}
#define COLUMNS_OK "index\timage\tquestion\tanswer\n"
#define ROW(index) index "\t" PNG_1X1 "\tWhat?\t['a']\n"

static const bad_case eval_cases[] = {
    {"eval: nothing to measure", 2, {"nothing to measure"}, .run = "eval @model"},
    {"eval: unknown task", 2, {"'hellaswag'"}, .run = "eval @model --tasks hellaswag"},
    {"eval: task without a name", 2, {"':@dir/t.tsv'"}, .run = "eval @model --tasks :@dir/t.tsv"},
    {"eval: task without a file", 2, {"'x_docvqa:'"}, .run = "eval @model --tasks x_docvqa:"},
    {"eval: task of unknown rules", 5, {"@dir/t.tsv", "'image'", "gsm8k"}, TABLE("index\tquestion\tanswer\n1\tq\ta\n"), "eval @model --tasks gsm8k:@dir/t.tsv"},
    {"eval: kl without data", 2, {"--data"}, .run = "eval @model --tasks kl"},
    {"eval: data without a use", 2, {"--data"}, TABLE(COLUMNS_OK ROW("1")), BENCHMARK " --data @demo/eval/chat_holdout.jsonl"},
    {"eval: log without a benchmark", 2, {"--log-samples"}, .run = "eval @model --data @demo/eval/chat_holdout.jsonl --log-samples @dir/log"},
    {"table: missing", 5, {"@dir/t.tsv"}, .run = BENCHMARK},
    {"table: empty", 5, {"@dir/t.tsv", "empty"}, TABLE(""), BENCHMARK},
    {"table: a folder", 5, {"@dir/t.tsv", "regular"}, {{FOLDER, "t.tsv"}}, BENCHMARK},
    {"table: only a header", 5, {"@dir/t.tsv", "no rows"}, TABLE(COLUMNS_OK), BENCHMARK},
    {"table: no index", 5, {"@dir/t.tsv", "'index'"}, TABLE("id\timage\tquestion\tanswer\n"), BENCHMARK},
    {"table: commas", 5, {"@dir/t.tsv", "'index'"}, TABLE("index,image,question,answer\n1,a,b,c\n"), BENCHMARK},
    {"table: no answer", 5, {"@dir/t.tsv", "'answer'"}, TABLE("index\timage\tquestion\n1\ta\tb\n"), BENCHMARK},
    {"table: a row is short", 5, {"@dir/t.tsv", "line 3 has 2 columns"}, TABLE(COLUMNS_OK ROW("1") "2\tx\n"), BENCHMARK},
    {"table: a quote is never closed", 5, {"@dir/t.tsv", "line 3"}, TABLE(COLUMNS_OK ROW("1") "2\t\"abc\tx\ty\n"), BENCHMARK},
    {"table: an index twice", 5, {"@dir/t.tsv", "lines 2 and 4", "'1'"}, TABLE(COLUMNS_OK ROW("1") ROW("2") ROW("1")), BENCHMARK},
    {"table: the picture is no base64", 5, {"x_docvqa: row 1 at line 2"}, TABLE(COLUMNS_OK "1\t**********************************************************************\tWhat?\t['a']\n"), BENCHMARK},
    {"table: the picture is no picture", 5, {"x_docvqa: row 1 at line 2"}, TABLE(COLUMNS_OK "1\tSGVsbG8gd29ybGQhIEhlbGxvIHdvcmxkISBIZWxsbyB3b3JsZCEgSGVsbG8gd29ybGQhIEhlbGxvIHdvcmxkIQ==\tWhat?\t['a']\n"), BENCHMARK},
    {"table: the picture is missing", 5, {"x_docvqa: row 1 at line 2"}, TABLE(COLUMNS_OK "1\t99\tWhat?\t['a']\n"), BENCHMARK},
    {"log: exists", 1, {"@dir/log", "nothing is overwritten"}, {{TEXT, "t.tsv", COLUMNS_OK ROW("1")}, {TEXT, "log", "mine"}}, BENCHMARK " --log-samples @dir/log"},
    {"log: its folder is missing", 1, {"@dir/gone/log"}, TABLE(COLUMNS_OK ROW("1")), BENCHMARK " --log-samples @dir/gone/log"},
    {"log: removed after a failure", 5, {"x_docvqa: row 2 at line 3"}, TABLE(COLUMNS_OK ROW("1") "2\t99\tWhat?\t['a']\n"), BENCHMARK " --log-samples @dir/log"},
    {"table: a question longer than the context", 4, {"x_docvqa: row 1 at line 2", "does not fit"}, TABLE(COLUMNS_OK ROW("1")), "eval @model -n 1000000 --tasks x_docvqa:@dir/t.tsv"},
    {"text: missing", 5, {"@dir/t.txt"}, .run = "eval @model --text @dir/t.txt"},
    {"text: too short", 5, {"@dir/t.txt", "512"}, {{TEXT, "t.txt", "Hello"}}, "eval @model --text @dir/t.txt"},
    {"reference: missing", 5, {"@dir/base"}, .run = "eval @model --ref @dir/base --data @demo/eval/chat_holdout.jsonl --limit 1"},
    {"eval: the second model is missing", 5, {"@dir/second"}, .run = "eval @model @dir/second --data @demo/eval/chat_holdout.jsonl --limit 1"},
};

/* ---- flags ------------------------------------------------------------------------------------------------------------- */

static const bad_case flag_cases[] = {
    {"no command", 2, {"nibble --help"}, .run = "--json"},
    {"unknown command", 2, {"'qantize'", "did you mean 'quantize'"}, .run = "qantize @model"},
    {"unknown command, nothing near", 2, {"'frobnicate'", "--help"}, .run = "frobnicate"},
    {"unknown flag", 2, {"'--tmep'", "did you mean '--temp'"}, .run = "run @model -p Hi --tmep 1"},
    {"unknown flag, nothing near", 2, {"'--frobnicate'"}, .run = "run @model -p Hi --frobnicate"},
    {"no model", 2, {"MODEL"}, .run = "run -p Hi"},
    {"two models", 2, {"@model"}, .run = "run @model @model -p Hi"},
    {"a flag without its value", 2, {"-p needs a value"}, .run = "run @model -p"},
    {"a flag that is no number", 2, {"-n", "'many'"}, .run = "run @model -p Hi -n many"},
    {"a flag out of range", 2, {"-n", "'0'"}, .run = "run @model -p Hi -n 0"},
    {"a temperature of nan", 2, {"--temp", "nan"}, .run = "run @model -p Hi --temp nan"},
    {"an unknown choice", 2, {"--device", "auto, cpu"}, .run = "run @model -p Hi --device gpu"},
    {"no GPU backend", 5, {"no GPU can be used", "@dir/nothing.so"}, .run = "run @model -p Hi --device cuda", .environment = "NIBBLE_CUDA_PLUGIN=@dir/nothing.so"},
    {"threads out of range", 2, {"-t", "0 to 1024"}, .run = "run @model -p Hi -t 100000"},
    {"environment: no number", 2, {"NIBBLE_PREDICT", "'many'"}, .run = "run @model -p Hi", .environment = "NIBBLE_PREDICT=many"},
    {"environment: unknown ISA", 2, {"NIBBLE_ISA", "sse9"}, .run = "run @model -p Hi", .environment = "NIBBLE_ISA=sse9"},
    {"config file: missing", 5, {"@dir/c.json"}, .run = "run @model -p Hi --config @dir/c.json"},
    {"config file: broken", 5, {"@dir/c.json: line 2, column 1"}, {{TEXT, "c.json", "{\"temp\": 1,\n}"}}, "run @model -p Hi --config @dir/c.json"},
    {"config file: unknown key", 2, {"@dir/c.json", "'tmep'"}, {{TEXT, "c.json", "{\"run\": {\"tmep\": 1}}"}}, "run @model -p Hi --config @dir/c.json"},
    {"config file: wrong type", 2, {"@dir/c.json", "predict"}, {{TEXT, "c.json", "{\"predict\": \"many\"}"}}, "run @model -p Hi --config @dir/c.json"},
    {"run: nothing to run", 2, {"nothing to run"}, .run = "run @model"},
    {"run: an empty prompt file", 0, .changes = {{TEXT, "p.txt", ""}}, .run = "run @model -f @dir/p.txt -n 2"},
    {"run: prompt file missing", 5, {"@dir/p.txt"}, .run = "run @model -f @dir/p.txt"},
    {"run: prompt file not UTF-8", 5, {"@dir/p.txt", "UTF-8"}, {{TEXT, "p.txt", "abc\xff"}}, "run @model -f @dir/p.txt -n 2"},
    {"run: prompt longer than the context", 4, {"does not fit"}, .run = "run @model -p Hello,tell,me,all,that,you,know,about,receipts -n 64 -c 16"},
    {"run: answer longer than the context", 4, {"does not fit"}, .run = "run @model -p Hi -n 100000"},
    {"run: messages longer than the context", 4, {HERE " line 1", "does not fit"}, ROWS(GOOD), "run @model -n 64 -c 16 --messages @dir/rows.jsonl"},
    {"bench: nothing to do", 2, {"no test is left"}, .run = "bench @model -p 0 -n 0"},
    {"bench: half a pair", 2, {"--pg", "'5'"}, .run = "bench @model -pg 5"},
    {"bench: no number", 2, {"-p", "'4,x'"}, .run = "bench @model -p 4,x"},
    {"bench: missing model", 5, {"@dir/nothing"}, .run = "bench @dir/nothing"},
    {"inspect: bad expression", 2, {"--filter", "("}, .run = "inspect @model --tensors --filter ("},
    {"inspect: filter alone", 2, {"--filter"}, .run = "inspect @model --filter x"},
    {"chat: unknown checkpoint", 5, {"@dir/nothing"}, .run = "chat @dir/nothing"},
};

/* ---- what quantize is asked, and where it shall write ------------------------------------------------------------------ */

#define ROUND "quantize @model --method rtn --out @dir/out"
#define WITH_DATA " --data @demo/calib/chat.jsonl --samples 2"

static const bad_case quantize_cases[] = {
    {"quantize: no --out", 2, {"--out"}, .run = "quantize @model --data x"},
    {"quantize: no --data", 2, {"--data is missing"}, .run = "quantize @model --out @dir/out"},
    {"quantize: 5 bits", 2, {"--bits", "'5'"}, .run = ROUND " --bits 5"},
    {"quantize: 8 bits in the awq format", 2, {"awq format", "4 bits"}, .run = ROUND " --bits 8 --format awq"},
    {"quantize: groups of 7, awq", 5, {"model.layers.0.", "7"}, .run = ROUND " --group-size 7 --format awq"},
    {"quantize: groups of -5", 2, {"--group-size"}, .run = ROUND " --group-size -5"},
    {"quantize: groups of 0", 2, {"--group-size"}, .run = ROUND " --group-size 0"},
    {"quantize: unknown method", 2, {"--method", "'spinquant'", "awq"}, .run = "quantize @model --out @dir/out --method spinquant"},
    {"quantize: damping reversed", 2, {"--damp-max"}, .run = "quantize @model --out @dir/out --method gptq --damp 0.5 --damp-max 0.1" WITH_DATA},
    {"quantize: weights of nothing", 2, {"--modality-weights", "0:0"}, .run = "quantize @model --out @dir/out --modality-weights 0:0" WITH_DATA},
    {"quantize: settings of a stranger", 2, {"--quant-config"}, .run = ROUND " --quant-config {\"bits\":5}"},
    {"quantize: settings broken", 5, {"--quant-config", "column 2"}, .run = ROUND " --quant-config {bits}"},
    {"out: exists", 2, {"@dir/out exists", "--force"}, {{FOLDER, "out"}, {TEXT, "out/mine", "x"}}, ROUND},
    {"out: a file", 2, {"@dir/out"}, {{TEXT, "out", "x"}}, ROUND},
    {"out: a file, by force", 2, {"@dir/out", "not a directory"}, {{TEXT, "out", "x"}}, ROUND " --force"},
    {"out: holds folders, by force", 2, {"@dir/out", "'sub'"}, {{FOLDER, "out"}, {FOLDER, "out/sub"}}, ROUND " --force"},
    {"out: the model, by force", 2, {"@model"}, .run = "quantize @model --out @model --method rtn --force"},
    {"out: the model's place until then", 2, {"@dir/out", "is the model itself"}, .model = "out.partial", .run = ROUND},
    {"out: its folder is missing", 2, {"@dir/gone"}, .run = "quantize @model --method rtn --out @dir/gone/out"},
    {"out: under a file", 2, {"@dir/file"}, {{TEXT, "file", "x"}}, "quantize @model --method rtn --out @dir/file/out"},
    {"out: in /proc", 1, {"/proc/out"}, .run = "quantize @model --method rtn --out /proc/out"},
    {"out: the name is too long", 1, {"@dir/x"}, .run = "quantize @model --method rtn --out @dir/xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"},
    {"out: files may not grow to the weights", 1, {"@dir/out.partial/model.safetensors"}, .run = ROUND, .file_limit = 1 << 20},
    {"out: files may not grow at all", 1, {"@dir/out.partial"}, .run = ROUND, .file_limit = 4096},
    {"standard output: full, inspect", 1, {"standard output"}, .run = "inspect @model", .to = "/dev/full"},
    {"standard output: full, run", 1, {"standard output"}, .run = "run @model -p Hi -n 2", .to = "/dev/full"},
    {"standard output: full, bench", 1, {"standard output"}, .run = "bench @model -p 4 -n 4 -r 1 --no-probe", .to = "/dev/full"},
    {"standard output: full, help", 1, {"standard output"}, .run = "--help", .to = "/dev/full"},
};

/* ---- stopped ------------------------------------------------------------------------------------------------------------- */

#define LONG "quantize @model --out @dir/out --data @demo/calib/chat.jsonl --samples 24 --method "
#define WRITING "@dir/out.partial/model.safetensors"

static const bad_case stop_cases[] = {
    {"SIGINT: quantize, awq", 130, {"stopped", "@dir/out"}, .run = LONG "awq", .signal = SIGINT, .when = WRITING},
    {"SIGTERM: quantize, awq", 7, {"stopped", "@dir/out"}, .run = LONG "awq", .signal = SIGTERM, .when = WRITING},
    {"SIGINT: quantize, gptq", 130, {"stopped", "@dir/out"}, .run = LONG "gptq", .signal = SIGINT, .when = WRITING},
    {"SIGTERM: quantize in a later layer", 7, {"stopped", "@dir/out"}, .run = LONG "gptq --progress json", .signal = SIGTERM, .when = "@stderr", .seen = "layer 3 of 6"},
    {"SIGINT: run", 130, {"stopped"}, .run = "run @model -p Hi -n 20000 --ignore-eos", .signal = SIGINT, .when = "@stdout"},
    {"SIGTERM: run", 7, {"stopped"}, .run = "run @model -p Hi -n 20000 --ignore-eos", .signal = SIGTERM, .when = "@stdout"},
    {"SIGINT: run, messages", 130, {"stopped"}, .run = "run @model --messages @demo/calib/chat.jsonl -n 500 --ignore-eos -np 2", .signal = SIGINT, .when = "@stdout"},
    {"SIGINT: bench", 130, {"stopped"}, .run = "bench @model -p 1-2000 -n 0 -r 1 --progress json", .signal = SIGINT, .when = "@stderr"},
    {"SIGTERM: eval", 7, {"stopped"}, .run = "eval @model --tasks docvqa:@demo/eval/demo_docvqa.tsv --log-samples @dir/log --progress json", .signal = SIGTERM, .when = "@stderr"},
    {"SIGINT: eval, data", 130, {"stopped"}, .run = "eval @model --ref @model --data @demo/eval/chat_holdout.jsonl --progress json", .signal = SIGINT, .when = "@stderr"},
};

#endif
