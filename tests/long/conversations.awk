# Chats of words that are one token each, from the vocabulary of a checkpoint:
#
#     grep -oE '"Ġ[a-z]{2,}"' MODEL/vocab.json | awk -v rows=16 -v low=492 -v high=492 -f conversations.awk
#
# ROWS rows of LOW to HIGH words; the template and the answer add 22 tokens.
BEGIN { seed = 12345 }
function draw(n) { seed = (seed * 16807) % 2147483647; return seed % n }
{ gsub(/["Ġ]/, ""); word[n++] = $1 }
END {
    for (r = 0; r < rows; r++) {
        length_of = low + draw(high - low + 1)
        text = ""
        for (i = 0; i < length_of; i++) text = text " " word[draw(n)]
        printf "{\"messages\": [{\"role\": \"user\", \"content\": \"%s\"}, {\"role\": \"assistant\", \"content\": \"ok\"}]}\n", text
    }
}
