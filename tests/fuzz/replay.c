/*
 * replay.c - a fuzz target over every file of its corpus, as an ordinary test.
 *
 * Method: linked with one fuzz_*.c in the place of libFuzzer. The inputs are the empty one and each
 *         file of the folder that is named, in order of their names. Each lies in memory of exactly
 *         its own size, so that a sanitizer sees a read past its end. A target that finds a fault
 *         aborts; the name of its input is the last thing on stderr before that.
 */
#include "core/check.h"

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { INPUT_BYTES_MAX = 1 << 20, PATH_BYTES_MAX = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t input[INPUT_BYTES_MAX + 1];

static void replay(const uint8_t *bytes, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1); /* tidy: allow, its end must be the input's end */
    CHECK(copy != NULL);
    for (size_t i = 0; i < size; i++) {
        copy[i] = bytes[i];
    }
    CHECK(LLVMFuzzerTestOneInput(copy, size) == 0);
    free(copy);
}

static void replay_file(const char *folder, const char *name)
{
    char path[PATH_BYTES_MAX];
    const int length = snprintf(path, sizeof(path), "%s/%s", folder, name);
    CHECK(length > 0 && length < PATH_BYTES_MAX);
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    const size_t size = fread(input, 1, sizeof(input), file);
    CHECK(size <= INPUT_BYTES_MAX);
    (void)fclose(file);
    (void)fprintf(stderr, "%s, %zu bytes\n", name, size);
    replay(input, size);
}

int main(int count, char **words)
{
    struct dirent **names = NULL;
    int passed = 1;

    CHECK(count == 2);
    replay(input, 0);
    const int found = scandir(words[1], &names, NULL, alphasort);
    CHECK(found > 0);
    for (int i = 0; i < found; i++) {
        if (names[i]->d_name[0] != '.') {
            replay_file(words[1], names[i]->d_name);
            passed++;
        }
        free(names[i]);
    }
    free(names);
    CHECK(passed > 1); /* a corpus without a file is a wrong path */
    (void)printf("%d passed, 0 failed\n", passed);
    return 0;
}
