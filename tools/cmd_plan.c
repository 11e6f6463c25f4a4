/* cmd_plan.c - `nibble plan`: `nibble quantize --dry-run` as a verb of its own, with the same flags. */
#include "tools/commands.h"
#include "tools/quantize_flags.h"

static nb_status run(nb_args *args, void *options, nb_error *err)
{
    nb_quantize_flags *opt = options;
    opt->dry_run = true;
    return nb_quantize_command(args, opt, err);
}

const nb_command nb_command_plan = {
    .name = "plan",
    .summary = "say what a quantization would take: memory, disk, size of the result",
    .usage = "MODEL --out DIR [flags of quantize]",
    .about = "Takes the flags of 'nibble quantize', checks them, and prints the most memory and disk that the run can need and the size "
             "of its result; nothing is read but headers, and nothing is written. With --max-ram it says whether that is enough, and "
             "ends with code 4 when it is not.",
    .examples = "  nibble plan Qwen2-VL-2B-Instruct --data chats.jsonl --out 2b-awq\n"
                "  nibble plan MODEL --data sft.json --method gptq --max-ram 6G --out 7b-int4 --json\n",
    .blocks = nb_quantize_blocks,
    .options_size = sizeof(nb_quantize_flags),
    .run = run,
};
