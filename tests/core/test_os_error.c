/* test_os_error.c - every error number has words, whichever sign it comes with. */
#include "core/check.h"
#include "core/os.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void a_number_and_its_negative_mean_the_same(void)
{
    CHECK(strcmp(os_error(ENOSPC), "No space left on device") == 0);
    CHECK(strcmp(os_error(-ENOSPC), "No space left on device") == 0);
}

static void a_number_that_is_no_error_has_words_too(void)
{
    CHECK(strcmp(os_error(99999), "unknown error") == 0);
    CHECK(strcmp(os_error(-99999), "unknown error") == 0);
}

int main(void)
{
    a_number_and_its_negative_mean_the_same();
    a_number_that_is_no_error_has_words_too();
    puts("2 passed, 0 failed");
    return 0;
}
