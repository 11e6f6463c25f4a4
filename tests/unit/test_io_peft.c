/* Adapters that PEFT made, saved and merged (tests/oracle/peft_oracle.py): nibble reads the same files and must get the values that
 * PEFT's merge_and_unload left, but for what float32 arithmetic can move a rounding to bfloat16. */
#include "unit.h"

#include <dirent.h>

#include "kernels/float.h"
#include "runtime/io/adapter.h"

/* One unit in the last place of a bfloat16 as large as x. */
static double unit_of(float x)
{
    int exponent;
    frexp((double)x, &exponent);
    return ldexp(1, exponent - 8);
}

typedef struct {
    size_t tensors, values, differ;
} tally;

static void compare(tally *t, const nb_checkpoint *merged, const nb_safetensors *file, const nb_tensor *want)
{
    nb_error        err;
    const nb_entry  expected = {.name = want->name, .tensor = want, .file = file};
    const nb_entry *got;
    OK(nb_checkpoint_get(merged, want->name, want->rank, want->shape, &got, &err), &err);
    assert_non_null(got->edit);
    float *a = malloc(want->count * sizeof *a), *b = malloc(want->count * sizeof *b);
    OK(nb_entry_read_f32(got, a, &err), &err);
    OK(nb_entry_read_f32(&expected, b, &err), &err);
    for (size_t i = 0; i < want->count; i++) {
        if (!(fabs((double)a[i] - b[i]) <= unit_of(b[i])))
            fail_msg("%s: element %zu is %.9g, PEFT has %.9g", want->name, i, (double)a[i], (double)b[i]);
        t->differ += a[i] != b[i];
    }
    t->tensors++;
    t->values += want->count;
    free(a);
    free(b);
}

static void check_case(tally *t, const char *name)
{
    nb_error        err;
    nb_checkpoint  *base;
    nb_adapters    *all;
    nb_safetensors *expected;
    nb_buf          summary = {0}, notes = {0};
    char            folder[300], path[400];
    size_t          edits = 0, before = t->tensors;
    snprintf(folder, sizeof folder, "tests/golden/peft/%.200s", name);
    snprintf(path, sizeof path, "%s/expected.safetensors", folder);
    OK(nb_checkpoint_open(&base, unit_path("tests/golden/peft/base"), &err), &err);
    OK(nb_adapters_new(&all, base, false, &err), &err);
    OK(nb_adapters_add(all, unit_path(folder), 1, &summary, &notes, &err), &err);
    OK(nb_safetensors_open(&expected, unit_path(path), &err), &err);
    for (size_t i = 0; i < nb_safetensors_count(expected); i++) compare(t, base, expected, nb_safetensors_at(expected, i));
    for (size_t i = 0; i < nb_checkpoint_count(base); i++) edits += nb_checkpoint_at(base, i)->edit != NULL;
    if (edits != t->tensors - before) fail_msg("%s: %zu tensors change, of PEFT %zu", name, edits, t->tensors - before);
    nb_safetensors_close(expected);
    nb_checkpoint_close(base);
    nb_adapters_free(all);
    nb_buf_free(&summary);
    nb_buf_free(&notes);
}

static void test_peft(void **state)
{
    (void)state;
    tally  t = {0};
    int    cases = 0;
    DIR   *dir = opendir(unit_path("tests/golden/peft"));
    assert_non_null(dir);
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.' || !strcmp(e->d_name, "base")) continue;
        check_case(&t, e->d_name);
        cases++;
    }
    closedir(dir);
    print_message("%zu of %zu values in %zu tensors are the neighbour of PEFT's\n", t.differ, t.values, t.tensors);
    assert_int_equal(cases, 13);
    assert_true(t.values > 100000);
    assert_true(t.differ * 1000 <= t.values); /* a rounding that lies on the edge, not a different sum */
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_peft)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
