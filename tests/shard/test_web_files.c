/*
 * test_web_files.c - the web client's directory is served whole or refused with the reason: nothing
 * beside it, nothing half.
 *
 * Method: real directories under one of their own; each mistake against its sentence. The last
 *         function looks for the client as a server without server.web does.
 */
#include "core/check.h"
#include "core/log.h"
#include "shard/web_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_SIZE = CONFIG_TEXT_SIZE + 128, WHY_SIZE = 512 };

static char directory[CONFIG_TEXT_SIZE];
static struct config config;
static struct mem_plan plan;
static struct web_files web;
static char why[WHY_SIZE];
static uint32_t lines_logged;

static bool count_line(const char *line, uint32_t size)
{
    lines_logged += size > 0 && line[0] != '\0';
    return true;
}

static const char *path_of(const char *name)
{
    static char path[PATH_SIZE];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static void put_bytes(const char *name, const void *bytes, size_t size)
{
    FILE *file = fopen(path_of(name), "we");

    CHECK(file != NULL);
    CHECK(fwrite(bytes, 1, size, file) == size);
    CHECK(fclose(file) == 0);
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static void take(const char *name)
{
    CHECK(unlink(path_of(name)) == 0);
}

static int open_mode(enum mem_mode mode)
{
    mem_init(&plan, "test", mode);
    (void)snprintf(why, sizeof(why), "untouched");
    lines_logged = 0;
    memset(&web, 0xA5, sizeof(web));
    return web_files_open(&web, &config, &plan, why, sizeof(why));
}

static int open_files(void)
{
    return open_mode(MEM_MAP);
}

static void end(void)
{
    CHECK(mem_seal(&plan) == 0);
    mem_end(&plan);
}

static const struct web_file *find(const char *path)
{
    return web_files_find(&web, (struct slice){path, (uint32_t)strlen(path)});
}

static bool content_is(const struct web_file *file, const char *text)
{
    return file != NULL && slice_equal(file->content, (struct slice){text, (uint32_t)strlen(text)});
}

/* Refused with exactly that sentence behind the directory's path, and nothing is served. */
static void refused(int error, const char *sentence)
{
    char expected[WHY_SIZE];

    (void)snprintf(expected, sizeof(expected), "%s%s", directory, sentence);
    CHECK(open_files() == error);
    CHECK(strcmp(why, expected) == 0);
    CHECK(web.count == 0);
    end();
}

static void files_are_found_by_their_path(void)
{
    static const char zeros[] = {'a', '\0', 'b'};

    put("index.html", "<p>hello");
    put("app.js", "1;");
    put_bytes("icon.png", zeros, sizeof(zeros));
    put("empty.css", "");
    CHECK(open_files() == 0);
    CHECK(web.count == 5);
    CHECK(content_is(find("/app.js"), "1;"));
    CHECK(content_is(find("/index.html"), "<p>hello"));
    CHECK(content_is(find("/"), "<p>hello"));
    CHECK(content_is(find("/empty.css"), ""));
    CHECK(find("/icon.png")->content.size == sizeof(zeros));
    CHECK(memcmp(find("/icon.png")->content.data, zeros, sizeof(zeros)) == 0);
    CHECK(strcmp(why, "untouched") == 0);

    const char *const wrong[] = {"",          "app.js",   "/app",      "/app.jsx",
                                 "//app.js",  "/APP.JS",  "/./app.js", "/../web/app.js",
                                 "/x/app.js", "/app.js/", "/%61pp.js", "/app.js?"};
    for (uint32_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        CHECK(find(wrong[i]) == NULL);
    }
    end();
}

static void the_order_is_that_of_the_names(void)
{
    CHECK(open_files() == 0);
    for (uint32_t i = 1; i < web.count; i++) {
        CHECK(strcmp(web.files[i - 1].name, web.files[i].name) < 0);
    }
    end();
}

static void an_etag_is_quoted_and_follows_the_content(void)
{
    char before[sizeof(web.files[0].etag)];

    CHECK(open_files() == 0);
    const char *etag = find("/app.js")->etag;
    CHECK(strlen(etag) == 22);
    CHECK(etag[0] == '"' && etag[21] == '"');
    CHECK(strspn(etag + 1, "0123456789abcdef") == 20);
    CHECK(strcmp(find("/")->etag, find("/index.html")->etag) == 0);
    CHECK(strcmp(find("/")->etag, etag) != 0);
    memcpy(before, etag, sizeof(before));
    end();

    CHECK(open_files() == 0);
    CHECK(strcmp(find("/app.js")->etag, before) == 0); /* the same after a restart */
    end();
    put("app.js", "2;");
    CHECK(open_files() == 0);
    CHECK(strcmp(find("/app.js")->etag, before) != 0);
    end();
}

static void each_kind_of_file_has_its_type(void)
{
    static const struct {
        const char *name, *type;
    } kinds[] = {
        {"a.html", "text/html; charset=utf-8"},
        {"a.css", "text/css; charset=utf-8"},
        {"a.js", "text/javascript; charset=utf-8"},
        {"a.svg", "image/svg+xml"},
        {"a.png", "image/png"},
        {"a.ico", "image/x-icon"},
        {"a.webmanifest", "application/manifest+json"},
        {"a.json", "application/json"},
        {"a.min-1_0.txt", "text/plain; charset=utf-8"},
    };
    enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };
    char path[PATH_SIZE];

    for (uint32_t i = 0; i < KINDS; i++) {
        put(kinds[i].name, "x");
    }
    CHECK(open_files() == 0);
    for (uint32_t i = 0; i < KINDS; i++) {
        (void)snprintf(path, sizeof(path), "/%s", kinds[i].name);
        const struct slice type = find(path)->type;
        CHECK(slice_equal(type, (struct slice){kinds[i].type, (uint32_t)strlen(kinds[i].type)}));
    }
    end();
    for (uint32_t i = 0; i < KINDS; i++) {
        take(kinds[i].name);
    }
}

static void what_is_no_file_of_a_client_is_left_out_and_said(void)
{
    static const char *const others[] = {"app.js~", "README",    "x.md",    "a b.js",
                                         "js",      "x.html.gz", "a%2e.js", "\xc3\xa9.js"};
    enum { OTHERS = sizeof(others) / sizeof(others[0]) };
    static const char longest[] = /* 64 characters; one more is too many */
        "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz012345678.js";

    CHECK(open_files() == 0);
    const uint32_t before = web.count;
    end();
    for (uint32_t i = 0; i < OTHERS; i++) {
        put(others[i], "x");
    }
    put(".hidden.js", "x");
    put("zabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz012345678.js", "x");
    CHECK(mkdir(path_of("sub.js"), 0700) == 0);
    CHECK(mkfifo(path_of("pipe.js"), 0600) == 0); /* nobody writes: reading would wait */
    CHECK(open_files() == 0);
    CHECK(web.count == before);
    CHECK(lines_logged >= 1);
    end();

    take("zabcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz012345678.js");
    put(longest, "x");
    CHECK(open_files() == 0);
    CHECK(web.count == before + 1);
    CHECK(web_files_find(&web, (struct slice){web.files[1].name, 65}) == &web.files[1]);
    end();
    take(longest);
    take(".hidden.js");
    for (uint32_t i = 0; i < OTHERS; i++) {
        take(others[i]);
    }
    CHECK(rmdir(path_of("sub.js")) == 0);
    take("pipe.js");
}

static void a_file_above_the_maximum_is_refused(void)
{
    static char bytes[WEB_FILE_BYTES_MAX + 1];

    memset(bytes, 'x', sizeof(bytes));
    put_bytes("big.js", bytes, sizeof(bytes));
    refused(-EFBIG, "/big.js: 131073 bytes, at most 131072 are served from memory");
    put_bytes("big.js", bytes, sizeof(bytes) - 1);
    CHECK(open_files() == 0);
    CHECK(find("/big.js")->content.size == WEB_FILE_BYTES_MAX);
    CHECK(memcmp(find("/big.js")->content.data, bytes, WEB_FILE_BYTES_MAX) == 0);
    end();
    take("big.js");
}

static void more_files_than_there_are_places_for_are_refused(void)
{
    char name[16];

    for (uint32_t i = 0; i < WEB_FILES_MAX - 5; i++) { /* four are there, and the root */
        (void)snprintf(name, sizeof(name), "n%u.txt", (unsigned int)i);
        put(name, name);
    }
    CHECK(open_files() == 0);
    CHECK(web.count == WEB_FILES_MAX);
    for (uint32_t i = 0; i < WEB_FILES_MAX; i++) {
        CHECK(find(web.files[i].name) == &web.files[i]);
    }
    CHECK(content_is(find("/n7.txt"), "n7.txt"));
    CHECK(content_is(find("/"), "<p>hello"));
    end();
    put("one.txt", "x"); /* no place for the root */
    refused(-E2BIG, ": more than 64 names to serve; is it the web client?");
    put("two.txt", "x");
    refused(-E2BIG, ": more than 64 names to serve; is it the web client?");
    take("one.txt");
    take("two.txt");
    for (uint32_t i = 0; i < WEB_FILES_MAX - 5; i++) {
        (void)snprintf(name, sizeof(name), "n%u.txt", (unsigned int)i);
        take(name);
    }
}

static void what_cannot_be_read_is_refused(void)
{
    static const char mend[] = "let the user that damsod runs as read it, or name another "
                               "directory in [server] web";
    char sentence[WHY_SIZE];

    CHECK(symlink("nothing", path_of("dangling.js")) == 0);
    (void)snprintf(sentence, sizeof(sentence),
                   "/dangling.js: cannot be read: No such file or directory; %s", mend);
    refused(-ENOENT, sentence);
    take("dangling.js");
    if (geteuid() != 0) {
        return; /* the rest needs a second user */
    }
    CHECK(chmod(path_of("app.js"), 0) == 0);
    CHECK(chmod(directory, 0755) == 0);
    CHECK(seteuid(65534) == 0);
    (void)snprintf(sentence, sizeof(sentence), "/app.js: cannot be read: Permission denied; %s",
                   mend);
    refused(-EACCES, sentence);
    CHECK(seteuid(0) == 0);
    CHECK(chmod(directory, 0700) == 0);
    CHECK(seteuid(65534) == 0);
    (void)snprintf(sentence, sizeof(sentence), ": cannot be read: Permission denied; %s", mend);
    refused(-EACCES, sentence);
    CHECK(seteuid(0) == 0);
    CHECK(chmod(path_of("app.js"), 0600) == 0);
}

static void a_plan_that_only_counts_has_the_same_line(void)
{
    CHECK(open_mode(MEM_MAP) == 0);
    const size_t total = plan.total;
    CHECK(plan.line_count == 1);
    CHECK(web.count == 5);
    end();
    CHECK(open_mode(MEM_COUNT) == 0);
    CHECK(plan.line_count == 1);
    CHECK(plan.total == total);
    CHECK(web.count == 0);
    end();
}

static void a_missing_directory_serves_nothing_and_warns(void)
{
    char parent[CONFIG_TEXT_SIZE];

    memcpy(parent, directory, sizeof(parent));
    (void)snprintf(config.server_web, sizeof(config.server_web), "%.200s/missing", parent);
    CHECK(open_files() == 0);
    CHECK(web.count == 0);
    CHECK(find("/") == NULL);
    CHECK(lines_logged == 1);
    end();
    memcpy(config.server_web, parent, sizeof(parent));
}

static void an_empty_directory_serves_nothing(void)
{
    take("index.html");
    CHECK(open_files() == 0);
    CHECK(find("/") == NULL); /* without index.html there is no root */
    CHECK(web.count == 3);
    end();
    take("app.js");
    take("icon.png");
    take("empty.css");
    CHECK(open_files() == 0);
    CHECK(web.count == 0);
    end();
}

/* The usual places depend on where this test's binary and an installed damso are: what must hold is
 * that none of them missing is an error. */
static void without_a_directory_named_the_usual_places_are_looked_at(void)
{
    config.server_web[0] = '\0';
    CHECK(open_files() == 0);
    CHECK(web.count == 0 || find("/") != NULL);
    end();
}

int main(void)
{
    const char *parent = getenv("TMPDIR"); /* NOLINT(concurrency-mt-unsafe): one thread */

    log_writer(count_line);
    config_defaults(&config);
    (void)snprintf(directory, sizeof(directory), "%.200s/test_web_files.XXXXXX",
                   parent != NULL ? parent : P_tmpdir);
    CHECK(mkdtemp(directory) != NULL);
    memcpy(config.server_web, directory, sizeof(directory));
    files_are_found_by_their_path();
    the_order_is_that_of_the_names();
    an_etag_is_quoted_and_follows_the_content();
    each_kind_of_file_has_its_type();
    what_is_no_file_of_a_client_is_left_out_and_said();
    a_file_above_the_maximum_is_refused();
    more_files_than_there_are_places_for_are_refused();
    what_cannot_be_read_is_refused();
    a_plan_that_only_counts_has_the_same_line();
    a_missing_directory_serves_nothing_and_warns();
    an_empty_directory_serves_nothing();
    without_a_directory_named_the_usual_places_are_looked_at();
    CHECK(rmdir(directory) == 0);
    puts("12 passed, 0 failed");
    return 0;
}
