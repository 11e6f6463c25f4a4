/* data_script.h - which scripts a text is written in, told from the blocks of Unicode its characters are in.
 *
 * Letters and the marks and signs of a script's own blocks count; digits, punctuation and symbols that all scripts share do not.
 * A script is not a language: Latin is half the world's.  Only Japanese is told from Chinese, by its kana.
 */
#ifndef NB_DATA_SCRIPT_H
#define NB_DATA_SCRIPT_H

#include <stddef.h>
#include <stdint.h>

#define NB_SCRIPT_MAP(X)                                                                                                       \
    X(LATIN, "Latin") X(GREEK, "Greek") X(CYRILLIC, "Cyrillic") X(ARMENIAN, "Armenian") X(HEBREW, "Hebrew") X(ARABIC, "Arabic") \
    X(DEVANAGARI, "Devanagari") X(BENGALI, "Bengali") X(GURMUKHI, "Gurmukhi") X(GUJARATI, "Gujarati") X(ORIYA, "Oriya")        \
    X(TAMIL, "Tamil") X(TELUGU, "Telugu") X(KANNADA, "Kannada") X(MALAYALAM, "Malayalam") X(SINHALA, "Sinhala")                \
    X(THAI, "Thai") X(LAO, "Lao") X(TIBETAN, "Tibetan") X(MYANMAR, "Myanmar") X(GEORGIAN, "Georgian") X(HANGUL, "Hangul")      \
    X(ETHIOPIC, "Ethiopic") X(KHMER, "Khmer") X(MONGOLIAN, "Mongolian") X(KANA, "Kana") X(HAN, "Han") X(OTHER, "other")

typedef enum {
#define X(name, text) NB_SCRIPT_##name,
    NB_SCRIPT_MAP(X)
#undef X
    NB_SCRIPTS
} nb_script;

const char *nb_script_name(nb_script s);
nb_script   nb_script_of(uint32_t code_point); /* NB_SCRIPTS: of none */

typedef struct {
    uint32_t characters[NB_SCRIPTS];
} nb_script_count;
void      nb_script_add(nb_script_count *c, const char *utf8);
/* The script that most characters are of; Han with a tenth of kana counts as Kana, the way Japanese is written.  NB_SCRIPTS: no
 * character is of any. */
nb_script nb_script_main(const nb_script_count *c);

#endif
