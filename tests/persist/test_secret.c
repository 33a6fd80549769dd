/*
 * test_secret.c - a value comes from where it lies, and what is said when it does not come names
 *                 the key and the file, never the secret.
 *
 * Method: files of the test's own, each wrong in one way; ret holds a mark that a failure must
 *         leave as it is.
 */
#include "core/check.h"
#include "persist/secret.h"
#include "tests/persist/store_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#define SECRET "redis://:tops3cret@127.0.0.1:6379"
#define KEY    "[persist] redis_url"
#define MARK   "untouched"

static char directory[RIG_PATH_BYTES];
static char ret[64];
static char why[512];

static int resolve(const char *value)
{
    (void)snprintf(ret, sizeof(ret), MARK);
    why[0] = 0;
    return secret_resolve(KEY, value, ret, sizeof(ret), why, sizeof(why));
}

/* The failure is told well. */
static void check_refused(const char *value, int error, const char *words)
{
    CHECK(resolve(value) == error);
    CHECK(strcmp(ret, MARK) == 0);
    CHECK(strstr(why, KEY) == why);
    CHECK(strstr(why, words) != NULL);
    CHECK(strstr(why, "s3cret") == NULL);
}

/* file:PATH of a new file in the directory. */
static const char *file(const char *name, const char *text, size_t size, mode_t mode)
{
    static char value[RIG_PATH_BYTES + 64];

    (void)snprintf(value, sizeof(value), "file:%s/%s", directory, name);
    const int fd = open(value + 5, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(fd >= 0);
    CHECK(write(fd, text, size) == (ssize_t)size);
    CHECK(fchmod(fd, mode) == 0);
    CHECK(close(fd) == 0);
    return value;
}

static void plain_value_is_itself(void)
{
    CHECK(resolve(SECRET) == 0);
    CHECK(strcmp(ret, SECRET) == 0);
    CHECK(resolve("") == 0);
    CHECK(ret[0] == 0);
    check_refused("s3cret-s3cret-s3cret-s3cret-s3cret-s3cret-s3cret-s3cret-s3cret-s3cret",
                  -ENAMETOOLONG, "too long");
}

static void first_line_of_a_file_is_taken(void)
{
    static const char *const texts[] = {SECRET, SECRET "\n", SECRET "\r\n", SECRET "\nmore\n"};

    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        CHECK(resolve(file("good", texts[i], strlen(texts[i]), 0640)) == 0);
        CHECK(strcmp(ret, SECRET) == 0);
    }
}

static void wrong_file_is_refused_with_the_reason(void)
{
    static char large[16384];

    memset(large, 's', sizeof(large));
    check_refused(file("others", SECRET, strlen(SECRET), 0644), -EPERM, "chmod o=");
    check_refused(file("others", SECRET, strlen(SECRET), 0602), -EPERM, "/others: ");
    check_refused(file("empty", "", 0, 0600), -ENODATA, "empty");
    check_refused(file("line", "\n" SECRET, strlen(SECRET) + 1, 0600), -ENODATA, "empty");
    check_refused(file("zero", "s3c\0ret\n", 8, 0600), -EINVAL, "zero byte");
    check_refused(file("large", large, sizeof(large), 0600), -ENAMETOOLONG, "too long");
    check_refused(file("long", large, 64, 0600), -ENAMETOOLONG, "too long");
    CHECK(resolve(file("long", large, 63, 0600)) == 0);
}

static void what_is_no_file_is_refused_at_once(void)
{
    char value[RIG_PATH_BYTES + 64];

    check_refused("file:/nowhere/at/all", -ENOENT, "/nowhere/at/all");
    check_refused("file:/dev/null", -EINVAL, "no regular file");
    (void)snprintf(value, sizeof(value), "file:%s", directory);
    check_refused(value, -EINVAL, "no regular file");
    (void)snprintf(value, sizeof(value), "file:%s/fifo", directory);
    CHECK(mkfifo(value + 5, 0600) == 0);
    check_refused(value, -EINVAL, "no regular file");
}

static void credential_is_a_file_of_systemd(void)
{
    char absolute[4096];

    CHECK(unsetenv("CREDENTIALS_DIRECTORY") == 0); /* NOLINT(concurrency-mt-unsafe) */
    check_refused("credential:redis_url", -ENOENT, "LoadCredential=");
    CHECK(realpath(directory, absolute) != NULL);
    CHECK(setenv("CREDENTIALS_DIRECTORY", absolute, 1) == 0); /* NOLINT(concurrency-mt-unsafe) */
    (void)file("redis_url", SECRET "\n", strlen(SECRET) + 1, 0400);
    CHECK(resolve("credential:redis_url") == 0);
    CHECK(strcmp(ret, SECRET) == 0);
    check_refused("credential:other", -ENOENT, "/other");
    check_refused("credential:", -EINVAL, "no name");
    check_refused("credential:../redis_url", -EINVAL, "no name");
    check_refused("credential:a/b", -EINVAL, "no name");
}

int main(void)
{
    rig_make(directory);
    plain_value_is_itself();
    first_line_of_a_file_is_taken();
    wrong_file_is_refused_with_the_reason();
    what_is_no_file_is_refused_at_once();
    credential_is_a_file_of_systemd();
    rig_remove(directory);
    puts("5 passed, 0 failed");
    return 0;
}
