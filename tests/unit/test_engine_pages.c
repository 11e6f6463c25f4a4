/* test_engine_pages.c - KV pages: who holds them, finding them by key, and which goes first when memory is wanted. */
#include "runtime/engine/pages.h"
#include "unit.h"

static size_t live, refuse_after;

static void *count_alloc(const nb_ops *ops, size_t bytes)
{
    (void)ops;
    if (live == refuse_after) return NULL;
    live++;
    return nb_calloc_aligned(bytes, 1);
}
static void count_free(const nb_ops *ops, void *p)
{
    (void)ops;
    live -= p != NULL;
    free(p);
}

static nb_pages *pages_of(nb_ops *ops, size_t max)
{
    nb_error  err;
    nb_pages *p;
    *ops = (nb_ops){ .alloc = count_alloc, .free = count_free };
    live = 0;
    refuse_after = SIZE_MAX;
    OK(nb_pages_new(&p, ops, 256, max, &err), &err);
    return p;
}

static nb_page_key key(uint64_t i) { return (nb_page_key){ i * 64, i }; } /* all in one bucket */

static void test_holding(void **state)
{
    (void)state;
    nb_ops    ops;
    nb_pages *p = pages_of(&ops, 3);
    nb_page  *a = nb_pages_take(p), *b = nb_pages_take(p), *c = nb_pages_take(p);
    assert_non_null(c);
    assert_null(nb_pages_take(p));
    assert_ptr_not_equal(nb_page_data(a), nb_page_data(b));
    nb_pages_name(p, a, key(1));
    nb_pages_name(p, b, key(2));
    assert_ptr_equal(nb_pages_find(p, key(1)), a); /* two holders now */
    nb_pages_drop(p, a);
    assert_null(nb_pages_take(p));
    nb_pages_drop(p, a);
    assert_int_equal(nb_pages_look(p).cached, 1);
    assert_int_equal(nb_pages_look(p).held, 2);
    assert_ptr_equal(nb_pages_find(p, key(1)), a); /* back from the cache */
    assert_int_equal(nb_pages_look(p).cached, 0);
    nb_pages_drop(p, a);
    assert_ptr_equal(nb_pages_take(p), a); /* evicted */
    assert_null(nb_pages_find(p, key(1)));
    assert_false(nb_page_named(a));
    assert_ptr_equal(nb_pages_find(p, key(2)), b);
    nb_pages_drop(p, b);
    nb_pages_drop(p, b);
    nb_pages_drop(p, c);
    nb_pages_drop(p, a);
    nb_pages_forget(p);
    assert_null(nb_pages_find(p, key(2)));
    assert_int_equal(nb_pages_look(p).held, 0);
    nb_pages_free(p);
    assert_int_equal(live, 0);
}

/* Empty memory first, then new memory, then what was longest without a holder. */
static void test_eviction_order(void **state)
{
    (void)state;
    nb_ops    ops;
    nb_pages *p = pages_of(&ops, 4);
    nb_page  *page[4];
    for (uint64_t i = 0; i < 3; i++) {
        page[i] = nb_pages_take(p);
        nb_pages_name(p, page[i], key(i));
    }
    nb_pages_drop(p, page[1]);
    nb_pages_drop(p, page[2]);
    nb_pages_drop(p, page[0]);
    page[3] = nb_pages_take(p);
    assert_int_equal(live, 4); /* new memory before what is cached */
    assert_ptr_equal(nb_pages_take(p), page[1]);
    nb_pages_drop(p, page[1]); /* without a key: empty */
    assert_ptr_equal(nb_pages_take(p), page[1]);
    assert_ptr_equal(nb_pages_take(p), page[2]);
    assert_ptr_equal(nb_pages_take(p), page[0]);
    for (int i = 0; i < 4; i++) nb_pages_drop(p, page[i]);
    nb_pages_free(p);
}

/* Refused memory is made up for by what is cached; a key that is taken stays with its first page. */
static void test_refusal(void **state)
{
    (void)state;
    nb_ops    ops;
    nb_pages *p = pages_of(&ops, 100);
    refuse_after = 2;
    nb_page *a = nb_pages_take(p), *b = nb_pages_take(p);
    assert_null(nb_pages_take(p));
    assert_true(nb_pages_look(p).refused);
    nb_pages_name(p, a, key(7));
    nb_pages_name(p, b, key(7));
    assert_false(nb_page_named(b));
    nb_pages_drop(p, a);
    assert_ptr_equal(nb_pages_take(p), a);
    nb_pages_drop(p, a);
    nb_pages_drop(p, b);
    nb_pages_free(p);
}

/* Pages get memory together, a quarter of what is there at most: each has its own bytes, and all of it goes back. */
static void test_slabs(void **state)
{
    (void)state;
    enum { MAX = 103 };
    nb_ops    ops;
    nb_pages *p = pages_of(&ops, MAX);
    nb_page  *page[MAX];
    for (int i = 0; i < MAX; i++) {
        page[i] = nb_pages_take(p);
        assert_non_null(page[i]);
        memset(nb_page_data(page[i]), i, 256);
        size_t committed = nb_pages_look(p).committed;
        assert_true(committed >= (size_t)i + 1 && committed <= (size_t)i + 1 + (size_t)i / 4);
    }
    assert_null(nb_pages_take(p));
    assert_int_equal(nb_pages_look(p).committed, MAX);
    assert_true(live < MAX / 3);
    for (int i = 0; i < MAX; i++)
        for (int b = 0; b < 256; b++) assert_int_equal(((unsigned char *)nb_page_data(page[i]))[b], i);
    for (int i = 0; i < MAX; i++) nb_pages_drop(p, page[i]);
    nb_pages_free(p);
    assert_int_equal(live, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_holding), cmocka_unit_test(test_eviction_order),
                                        cmocka_unit_test(test_refusal), cmocka_unit_test(test_slabs) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
