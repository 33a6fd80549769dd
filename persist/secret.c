/* secret.c - see secret.h. */
#include "persist/secret.h"

#include "core/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SECRET_BYTES_MAX = 8192, SECRET_PATH_BYTES = 1024 };

#define FILE_BEGIN       "file:"
#define CREDENTIAL_BEGIN "credential:"

/* What is said about a value: its key, and where it should have been. */
struct asked {
    const char *key;
    const char *path;
    char *ret_why;
    size_t why_size;
};

static int refuse(const struct asked *asked, int error, const char *what)
{
    (void)snprintf(asked->ret_why, asked->why_size, "%s: %s: %s", asked->key, asked->path, what);
    return error;
}

static int check_file(const struct asked *asked, int fd)
{
    struct stat stat;

    if (fstat(fd, &stat) != 0) {
        const int error = -errno;
        return refuse(asked, error, os_error(error));
    }
    if (!S_ISREG(stat.st_mode)) {
        return refuse(asked, -EINVAL, "this is no regular file");
    }
    if ((stat.st_mode & S_IRWXO) != 0) {
        return refuse(asked, -EPERM,
                      "others than its owner and group may use it; run: chmod o= on it");
    }
    return 0;
}

/* Reads until size or the end: bytes, or -errno. */
static ssize_t read_all(int fd, char *bytes, size_t size)
{
    size_t used = 0;

    while (used < size) {
        const ssize_t got = read(fd, bytes + used, size - used);
        if (got < 0 && errno != EINTR) {
            return -errno;
        }
        if (got == 0) {
            break;
        }
        used += got > 0 ? (size_t)got : 0;
    }
    return (ssize_t)used;
}

/* The first line of text into ret. */
static int take_line(const struct asked *asked, const char *text, size_t used, char *ret,
                     size_t size)
{
    const char *end = memchr(text, '\n', used);
    size_t length = end != NULL ? (size_t)(end - text) : used;

    length -= length > 0 && text[length - 1] == '\r';
    if (length == 0) {
        return refuse(asked, -ENODATA, "its first line is empty");
    }
    if (length >= size || (end == NULL && used == SECRET_BYTES_MAX)) {
        return refuse(asked, -ENAMETOOLONG, "its first line is too long");
    }
    if (memchr(text, 0, length) != NULL) {
        return refuse(asked, -EINVAL, "there is a zero byte in its first line");
    }
    memcpy(ret, text, length);
    ret[length] = 0;
    return 0;
}

static int from_file(const struct asked *asked, char *ret, size_t size)
{
    char text[SECRET_BYTES_MAX];
    /* O_NONBLOCK: a FIFO without a writer would otherwise be waited for. */
    const int fd = open(asked->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        const int error = -errno;
        return refuse(asked, error, os_error(error));
    }
    int error = check_file(asked, fd);
    if (error == 0) {
        const ssize_t used = read_all(fd, text, sizeof(text));
        error = used < 0 ? refuse(asked, (int)used, os_error((int)used))
                         : take_line(asked, text, (size_t)used, ret, size);
        explicit_bzero(text, sizeof(text));
    }
    (void)close(fd);
    return error;
}

static int credential_path(const struct asked *asked, const char *name,
                           char path[SECRET_PATH_BYTES])
{
    /* systemd.exec(5), LoadCredential= */
    const char *directory = getenv("CREDENTIALS_DIRECTORY"); /* NOLINT(concurrency-mt-unsafe) */

    if (name[0] == 0 || name[0] == '.' || strchr(name, '/') != NULL) {
        return refuse(asked, -EINVAL, "this is no name of a credential");
    }
    if (directory == NULL || directory[0] != '/') {
        return refuse(asked, -ENOENT,
                      "there are no credentials ($CREDENTIALS_DIRECTORY is not set): is "
                      "LoadCredential= in the unit, and was it started by systemd?");
    }
    const int size = snprintf(path, SECRET_PATH_BYTES, "%s/%s", directory, name);
    return size < SECRET_PATH_BYTES ? 0 : refuse(asked, -ENAMETOOLONG, "its path is too long");
}

int secret_resolve(const char *key, const char *value, char *ret, size_t size, char *ret_why,
                   size_t why_size)
{
    struct asked asked = {.key = key, .path = value, .why_size = why_size};
    char path[SECRET_PATH_BYTES];

    asked.ret_why = ret_why;
    if (strncmp(value, FILE_BEGIN, strlen(FILE_BEGIN)) == 0) {
        asked.path = value + strlen(FILE_BEGIN);
        return from_file(&asked, ret, size);
    }
    if (strncmp(value, CREDENTIAL_BEGIN, strlen(CREDENTIAL_BEGIN)) == 0) {
        const int error = credential_path(&asked, value + strlen(CREDENTIAL_BEGIN), path);
        asked.path = path;
        return error < 0 ? error : from_file(&asked, ret, size);
    }
    const size_t length = strlen(value);
    if (length >= size) {
        asked.path = "the configuration"; /* never the value, which may be a secret itself */
        return refuse(&asked, -ENAMETOOLONG, "the value is too long");
    }
    memcpy(ret, value, length + 1);
    return 0;
}
