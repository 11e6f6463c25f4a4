/* test_tools_badinput.c - bad input of every kind against the program as users run it (see badinput.h for what is checked). */
#include "badinput.h"
#include "badinput_data.h"
#include "badinput_model.h"

#define GROUP(cases)                                \
    static void test_##cases(void **state)          \
    {                                               \
        (void)state;                                \
        check_cases(cases, NB_COUNT(cases));        \
    }
GROUP(weight_cases)
GROUP(config_cases)
GROUP(quantized_cases)
GROUP(side_file_cases)
GROUP(picture_cases)
GROUP(row_cases)
GROUP(eval_cases)
GROUP(flag_cases)
GROUP(quantize_cases)
GROUP(stop_cases)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weight_cases),
        cmocka_unit_test(test_config_cases),
        cmocka_unit_test(test_quantized_cases),
        cmocka_unit_test(test_side_file_cases),
        cmocka_unit_test(test_picture_cases),
        cmocka_unit_test(test_row_cases),
        cmocka_unit_test(test_eval_cases),
        cmocka_unit_test(test_flag_cases),
        cmocka_unit_test(test_quantize_cases),
        cmocka_unit_test(test_stop_cases),
    };
    int failed = cmocka_run_group_tests(tests, NULL, remove_root);
    printf("%d commands, %d complaints\n", cases_run, cases_wrong);
    return failed;
}
