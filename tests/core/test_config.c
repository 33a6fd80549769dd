/*
 * test_config.c - every value that is wrong is told, in words that help, and changes nothing.
 *
 * Method: whole files as strings through the real parser; each mistake against its sentence. Files
 *         and directories are real ones, in a directory of their own.
 */
#include "core/check.h"
#include "core/config.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct config config;
static struct config_errors errors;

static void begin(void)
{
    config_defaults(&config);
    memset(&errors, 0, sizeof(errors));
}

static int parse_bytes(const char *bytes, size_t size)
{
    static char file_bytes[64 * 1024]; /* fmemopen wants a buffer that it might write */

    CHECK(size <= sizeof(file_bytes));
    memcpy(file_bytes, bytes, size);
    FILE *file = fmemopen(file_bytes, size, "r");
    CHECK(file != NULL);
    const int result = config_stream(&config, file, "damso.conf", &errors);
    CHECK(fclose(file) == 0);
    return result;
}

static int parse(const char *text)
{
    return parse_bytes(text, strlen(text));
}

/* By every value, whatever lies between the fields. */
static bool same(const struct config *a, const struct config *b)
{
    struct config copy = *a;
    struct config_errors differing = {0};

    return config_reload(&copy, b, &differing) == 0 && differing.count == 0;
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* text is refused with exactly this one sentence, and every value stays. */
static void refuses(const char *text, const char *sentence)
{
    struct config before;

    begin();
    before = config;
    CHECK(parse(text) == -EINVAL);
    if (errors.count != 1 || strcmp(errors.text[0], sentence) != 0) {
        (void)fprintf(stderr, "expected: %s\n", sentence);
        config_errors_print(&errors, stderr);
    }
    CHECK(errors.count == 1);
    CHECK(strcmp(errors.text[0], sentence) == 0);
    CHECK(same(&before, &config));
}

static void accepts(const char *text)
{
    begin();
    const int result = parse(text);
    config_errors_print(&errors, stderr);
    CHECK(result == 0);
    CHECK(errors.count == 0);
}

static void defaults_are_those_of_the_table(void)
{
    begin();
    CHECK(strcmp(config.server_listen, "127.0.0.1") == 0);
    CHECK(config.server_port == 8080);
    CHECK(config.server_pin);
    CHECK(config.server_web[0] == '\0');
    CHECK(config.limits_text_bytes == 16384);
    CHECK(config.timeouts_room_idle == 300000);
    CHECK(config.egress_round_max == 45);
    CHECK(config.journal_durability == CONFIG_DURABILITY_FSYNC);
    CHECK(config.journal_bytes_max == 256 << 20);
    CHECK(config_check(&config, 1, &errors) == 0);
    CHECK(config_check(&config, 8, &errors) == 0);
    CHECK(errors.count == 0);
}

static void every_kind_is_read(void)
{
    accepts("[server]\n"
            "listen = ::1\n"
            "port=0\n"
            "  pin : no   ; a remark\n"
            "web = /usr/share/damso web\n"
            "\n"
            "# a comment\n"
            "[limits]\n"
            "text_bytes = 4096\n"
            "frame_bytes = 32K\r\n"
            "body_bytes=1m\n"
            "connections = 1000\n"
            "[timeouts]\n"
            "handshake = 500ms\n"
            "connect = 30s\n"
            "pong = 5m\n"
            "keepalive = 1h\n"
            "drain = 0\n"
            "[journal]\n"
            "durability = Journal\n"
            "bytes_max = 2g");
    CHECK(strcmp(config.server_listen, "::1") == 0);
    CHECK(config.server_port == 0);
    CHECK(!config.server_pin);
    CHECK(strcmp(config.server_web, "/usr/share/damso web") == 0);
    CHECK(config.limits_text_bytes == 4096);
    CHECK(config.limits_frame_bytes == 32768);
    CHECK(config.limits_body_bytes == 1 << 20);
    CHECK(config.limits_connections == 1000);
    CHECK(config.timeouts_handshake == 500);
    CHECK(config.timeouts_connect == 30000);
    CHECK(config.timeouts_pong == 300000);
    CHECK(config.timeouts_keepalive == 3600000);
    CHECK(config.timeouts_drain == 0);
    CHECK(config.journal_durability == CONFIG_DURABILITY_JOURNAL);
    CHECK(config.journal_bytes_max == UINT64_C(2) << 30);
}

static void choices_are_numbered_as_their_words_stand(void)
{
    accepts("[journal]\ndurability = memory\n");
    CHECK(config.journal_durability == CONFIG_DURABILITY_MEMORY);
    accepts("[journal]\ndurability = fsync\n");
    CHECK(config.journal_durability == CONFIG_DURABILITY_FSYNC);
    accepts("[log]\nlevel = error\n");
    CHECK(config.log_level == 4);
}

static void unknown_names_are_told_with_the_nearest(void)
{
    refuses("\n[limits]\ntxt_bytes = 1\n",
            "damso.conf:3: [limits] txt_bytes: unknown key, did you mean text_bytes?");
    refuses("[limits]\nxyzzy = 1\n", "damso.conf:2: [limits] xyzzy: unknown key");
    refuses("[limits]\nsegment_bytes = 1m\n",
            "damso.conf:2: [limits] segment_bytes: unknown key here, it belongs to [journal]");
    refuses("[limit]\ntext_bytes = 1\nrooms = x\n",
            "damso.conf:1: [limit]: unknown section, did you mean [limits]?");
    refuses("[nothing]\n", "damso.conf:1: [nothing]: unknown section");
    refuses("[limits]\n= 5\n", "damso.conf:2: [limits] : unknown key");
    refuses("port = 80\n", "damso.conf:1: a key before the first [section]");
}

static void values_out_of_bounds_are_told_with_the_bound(void)
{
    refuses("[server]\nport = 99999\n",
            "damso.conf:2: [server] port: 99999 is more than the maximum 65535 (TCP port to listen "
            "on; 0 takes a free one and prints it.)");
    refuses("[limits]\nheader_bytes = 1\n",
            "damso.conf:2: [limits] header_bytes: 1 is less than the minimum 1k (Size of an HTTP "
            "request's line and headers.)");
    refuses("[timeouts]\nhandshake = 99999999999999999999h\n",
            "damso.conf:2: [timeouts] handshake: 99999999999999999999h is more than the maximum "
            "10m (Time for a whole HTTP request to arrive.)");
    refuses("[limits]\nrooms = 18446744073709551617\n", /* 2^64 + 1 must not come out as 1 */
            "damso.conf:2: [limits] rooms: 18446744073709551617 is more than the maximum 10000000 "
            "(Rooms in memory, a shard.)");
    refuses("[limits]\ntext_bytes = 17179869184g\n", /* 2^64 */
            "damso.conf:2: [limits] text_bytes: 17179869184g is more than the maximum 256k (Size "
            "of a message's text in UTF-8.)");
}

static void values_of_the_wrong_form_are_told_with_the_form(void)
{
    refuses("[server]\nport = -1\n", "damso.conf:2: [server] port: \"-1\" is not a whole number "
                                     "(TCP port to listen on; 0 takes a free one and prints it.)");
    refuses("[server]\nport =\n", "damso.conf:2: [server] port: \"\" is not a whole number (TCP "
                                  "port to listen on; 0 takes a free one and prints it.)");
    refuses("[server]\npin = maybe\n",
            "damso.conf:2: [server] pin: \"maybe\" is not on or off (Whether each shard stays on "
            "one processor.)");
    refuses("[limits]\ntext_bytes = 16kb\n",
            "damso.conf:2: [limits] text_bytes: \"16kb\" is not a size such as 4096, 256k, 16m or "
            "1g (Size of a message's text in UTF-8.)");
    refuses("[timeouts]\npong = 20\n",
            "damso.conf:2: [timeouts] pong: \"20\" is not a duration such as 500ms, 30s, 5m or 1h "
            "(Time for a client to answer that.)");
    refuses("[persist]\nmode = redis\n",
            "damso.conf:2: [persist] mode: \"redis\" is not one of embedded|redis+mongodb (Where "
            "history is kept: SQLite in the data directory, or Redis before MongoDB.)");
    refuses("[auth]\nissuer =\n",
            "damso.conf:2: [auth] issuer: \"\" has 0 characters, must have 1 to 255 (Issuer (iss) "
            "of our tokens, and the only one accepted.)");
    refuses("[auth]\nissuer = a\x01z\n",
            "damso.conf:2: [auth] issuer: \"a?z\" contains a control character");
}

static void lines_that_are_nothing_are_told_each(void)
{
    refuses("[server]\nport\n", "damso.conf:2: neither [section], key = value, nor a comment");
    refuses("[server\nport = 1\n", "damso.conf:1: a section is one word in brackets: [server]");
    refuses("[server] port = 1\n", "damso.conf:1: a section is one word in brackets: [server]");
    begin();
    CHECK(parse("[server]\nfoo\nport = 1\n bar\n[auth] ; remark\nbaz\n") == -EINVAL);
    CHECK(errors.count == 3);
    CHECK(begins(errors.text[0], "damso.conf:2:"));
    CHECK(begins(errors.text[1], "damso.conf:4:")); /* no continuation of port */
    CHECK(begins(errors.text[2], "damso.conf:6:"));
    CHECK(config.server_port == 1);
}

static void a_key_given_twice_is_told_with_the_first_line(void)
{
    begin();
    CHECK(parse("[server]\nport = 81\n[log]\n[server]\nport = 82\n") == -EINVAL);
    CHECK(errors.count == 1);
    CHECK(strcmp(errors.text[0], "damso.conf:5: [server] port: given already on line 2") == 0);
    CHECK(config.server_port == 81);
}

static void all_mistakes_are_counted_and_the_first_are_kept(void)
{
    char text[2000] = "[server]\n";
    char printed[20000] = {0};

    for (uint32_t i = 0; i < 40; i++) {
        (void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "wrong%u = 1\n", i);
    }
    begin();
    CHECK(parse(text) == -EINVAL);
    CHECK(errors.count == 40);
    FILE *file = fmemopen(printed, sizeof(printed) - 1, "w");
    CHECK(file != NULL);
    config_errors_print(&errors, file);
    CHECK(fclose(file) == 0);
    CHECK(strstr(printed, "damso.conf:17: ") != NULL);
    CHECK(strstr(printed, "damso.conf:18: ") == NULL);
    CHECK(strstr(printed, "\nand 24 more\n") != NULL);
}

static void long_lines_zero_bytes_and_long_values_are_told(void)
{
    static char text[5000];

    (void)snprintf(text, sizeof(text), "[server]\nlisten = %0255d\n", 7);
    accepts(text);
    CHECK(strlen(config.server_listen) == 255);
    (void)snprintf(text, sizeof(text), "[server]\nlisten = %0256d\n", 7);
    begin();
    CHECK(parse(text) == -EINVAL);
    CHECK(strstr(errors.text[0], "...\" has 256 characters, must have 1 to 255") != NULL);
    (void)snprintf(text, sizeof(text), "[server]\nlisten = %02000d\nport = 99\n", 7);
    begin();
    CHECK(parse(text) == -EINVAL);
    CHECK(errors.count == 1);
    CHECK(strcmp(errors.text[0], "damso.conf:2: longer than 1023 bytes") == 0);
    CHECK(config.server_port == 99);

    static const char zero[] = "[server]\nport = 1\0 2\n";
    begin();
    CHECK(parse_bytes(zero, sizeof(zero) - 1) == -EINVAL);
    CHECK(strcmp(errors.text[0], "damso.conf:2: contains a zero byte: this is no text") == 0);
}

static void a_mark_at_the_start_and_an_empty_file_are_fine(void)
{
    accepts("\xef\xbb\xbf[server]\nport = 90\n");
    CHECK(config.server_port == 90);
    accepts("\n");
    accepts("; nothing\n\n\n   # here\n");
}

static void environment_is_read_and_strangers_are_passed_over(void)
{
    char *const good[] = {"PATH=/bin",
                          "DAMSO_SERVER_PORT=81",
                          "DAMSO_LIMITS_TEXT_BYTES=1k",
                          "DAMSO_URL=http://x",
                          "DAMSO_LOG_LEVEL=debug",
                          "DAMSO_",
                          "DAMSO",
                          NULL};
    char *const bad[] = {"DAMSO_SERVER_PORT=81x", "DAMSO_SERVR_PORT=80", "DAMSO_SERVER_COLOUR=1",
                         "DAMSO_LOG_LEVEL", NULL};

    begin();
    CHECK(config_environment(&config, good, &errors) == 0);
    CHECK(config.server_port == 81);
    CHECK(config.limits_text_bytes == 1024);
    CHECK(config.log_level == 0);
    begin();
    CHECK(config_environment(&config, bad, &errors) == -EINVAL);
    CHECK(errors.count == 3);
    CHECK(begins(errors.text[0], "DAMSO_SERVER_PORT: \"81x\" is not a whole number"));
    CHECK(strcmp(errors.text[1],
                 "DAMSO_SERVR_PORT: unknown variable, did you mean DAMSO_SERVER_PORT?") == 0);
    CHECK(strcmp(errors.text[2], "DAMSO_SERVER_COLOUR: unknown variable") == 0);
}

static void flags_are_read_and_told_by_their_name(void)
{
    begin();
    CHECK(config_set(&config, "server", "port", "82", "--port", &errors) == 0);
    CHECK(config.server_port == 82);
    CHECK(config_set(&config, "server", "port", "70000", "--port", &errors) == -EINVAL);
    CHECK(begins(errors.text[0], "--port: 70000 is more than the maximum 65535"));
    CHECK(config_set(&config, "server", "data", "a ;b", "--data", &errors) == -EINVAL);
    CHECK(config_set(&config, "server", "data", " b", "--data", &errors) == -EINVAL);
    CHECK(config_set(&config, "server", "prt", "1", "--set", &errors) == -EINVAL);
    CHECK(strstr(errors.text[3], "did you mean port?") != NULL);
    CHECK(config_set(&config, "sever", "port", "1", "--set", &errors) == -EINVAL);
    CHECK(strstr(errors.text[4], "did you mean [server]?") != NULL);
    CHECK(strcmp(config.server_data, "./data") == 0);
}

static void rules_between_keys_are_checked(void)
{
    begin();
    config.journal_bytes_max = 64 << 20;
    CHECK(config_check(&config, 2, &errors) == 0);
    CHECK(config_check(&config, 3, &errors) == -EINVAL);
    CHECK(strcmp(errors.text[0], "[journal] bytes_max: 64m is too little for 3 shards, each needs "
                                 "two segments of 16384k: at least 96m, or make segment_bytes "
                                 "smaller") == 0);
    begin();
    config.limits_text_bytes = 128 << 10;
    CHECK(config_check(&config, 1, &errors) == -EINVAL);
    CHECK(errors.count == 2); /* it fits neither a frame nor a body */
    CHECK(strcmp(errors.text[0],
                 "[limits] body_bytes: 64k is less than [limits] text_bytes, which is 128k") == 0);
    begin();
    config.uring_entries = 1000;
    config.journal_segment_bytes = (16 << 20) + 1;
    CHECK(config_check(&config, 1, &errors) == -EINVAL);
    CHECK(strcmp(errors.text[0], "[journal] segment_bytes: 16777217 is not a multiple of 4k") == 0);
    CHECK(strcmp(errors.text[1], "[uring] entries: 1000 is not a power of two") == 0);
}

/* What a configuration prints, read back into the defaults. */
static void reads_back(const struct config *printed)
{
    static char text[64 * 1024];

    memset(text, 0, sizeof(text));
    FILE *file = fmemopen(text, sizeof(text) - 1, "w");
    CHECK(file != NULL);
    config_print_effective(printed, file);
    CHECK(fclose(file) == 0);
    accepts(text);
    CHECK(same(&config, printed));
}

static void what_is_printed_reads_back_the_same(void)
{
    static char text[64 * 1024];
    struct config other;

    begin();
    other = config;
    reads_back(&other);
    CHECK(config_set(&other, "server", "web", "", "test", &errors) == 0);
    CHECK(config_set(&other, "server", "data", "/srv/a;b #c = d", "test", &errors) == 0);
    CHECK(config_set(&other, "server", "pin", "off", "test", &errors) == 0);
    CHECK(config_set(&other, "limits", "text_bytes", "4097", "test", &errors) == 0);
    CHECK(config_set(&other, "timeouts", "drain", "0s", "test", &errors) == 0);
    CHECK(config_set(&other, "timeouts", "pong", "90s", "test", &errors) == 0);
    CHECK(config_set(&other, "timeouts", "connect", "1001ms", "test", &errors) == 0);
    CHECK(config_set(&other, "journal", "durability", "memory", "test", &errors) == 0);
    reads_back(&other);

    FILE *file = fmemopen(text, sizeof(text) - 1, "w");
    CHECK(file != NULL);
    config_print_default(file);
    CHECK(fclose(file) == 0);
    CHECK(strstr(text, "\n\n# TCP port to listen on; 0 takes a free one and prints it.\n"
                       "# 0 to 65535\nport = 8080\n") != NULL);
    CHECK(strstr(text, "\n[journal]\n") != NULL);
}

static void reload_takes_what_it_may_and_names_the_rest(void)
{
    struct config next;

    begin();
    next = config;
    next.log_level = 0;
    next.server_port = 81;
    CHECK(config_reload(&config, &next, &errors) == 1);
    CHECK(config.log_level == 0);
    CHECK(config.server_port == 8080);
    CHECK(errors.count == 1);
    CHECK(strcmp(errors.text[0], "[server] port: 81 takes effect after a restart") == 0);
    CHECK(config_reload(&config, &config, &errors) == 0);
    CHECK(errors.count == 1);
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    CHECK(file != NULL);
    CHECK(fputs(text, file) >= 0);
    CHECK(fclose(file) == 0);
}

static void files_of_the_directory_win_in_the_order_of_their_names(void)
{
    char where[] = "test_config_XXXXXX";

    CHECK(mkdtemp(where) != NULL);
    CHECK(chdir(where) == 0);
    begin();
    CHECK(config_file(&config, "damso.conf", &errors) == -ENOENT);
    CHECK(strcmp(errors.text[0], "damso.conf: cannot be read: No such file or directory; write one "
                                 "with --print-default-config, or name another") == 0);

    write_file("damso.conf", "[server]\nport = 1\n[log]\nlevel = debug\n");
    begin();
    CHECK(config_file(&config, "damso.conf", &errors) == 0); /* no directory: fine */
    CHECK(mkdir("damso.conf.d", 0700) == 0);
    /* The last name is made neither first nor last, so that no order of making will do. */
    write_file("damso.conf.d/10.conf", "[server]\nport = 10\nshards = 1\ndata = ten\n");
    write_file("damso.conf.d/20.conf", "[server]\nport = 20\nshards = 2\n");
    write_file("damso.conf.d/15.conf", "[server]\nport = 15\nshards = 3\n");
    write_file("damso.conf.d/.30.conf", "[server]\nlisten = 0.0.0.0\n");
    write_file("damso.conf.d/40.conf.bak", "[server]\nport = 40\n");
    begin();
    CHECK(config_file(&config, "damso.conf", &errors) == 0);
    CHECK(config.server_port == 20);
    CHECK(config.server_shards == 2);
    CHECK(strcmp(config.server_data, "ten") == 0);
    CHECK(strcmp(config.server_listen, "127.0.0.1") == 0);
    CHECK(config.log_level == 0);

    write_file("damso.conf.d/15.conf", "[server]\nprt = 10\n");
    begin();
    CHECK(config_file(&config, "damso.conf", &errors) == -EINVAL);
    CHECK(strcmp(errors.text[0], "damso.conf.d/15.conf:2: [server] prt: unknown key, did you mean "
                                 "port?") == 0);
    begin();
    CHECK(config_file(&config, "damso.conf.d", &errors) == -EISDIR);
    CHECK(strcmp(errors.text[0], "damso.conf.d: cannot be read: Is a directory") == 0);
    begin();
    CHECK(config_file(&config, "/dev/zero", &errors) == -EINVAL); /* it comes to an end */
    CHECK(strstr(errors.text[0], "larger than 1 MiB") != NULL);

    CHECK(unlink("damso.conf.d/20.conf") == 0 && unlink("damso.conf.d/10.conf") == 0);
    CHECK(unlink("damso.conf.d/15.conf") == 0 && unlink("damso.conf.d/.30.conf") == 0);
    CHECK(unlink("damso.conf.d/40.conf.bak") == 0 && unlink("damso.conf") == 0);
    CHECK(rmdir("damso.conf.d") == 0 && chdir("..") == 0 && rmdir(where) == 0);
}

int main(void)
{
    defaults_are_those_of_the_table();
    every_kind_is_read();
    choices_are_numbered_as_their_words_stand();
    unknown_names_are_told_with_the_nearest();
    values_out_of_bounds_are_told_with_the_bound();
    values_of_the_wrong_form_are_told_with_the_form();
    lines_that_are_nothing_are_told_each();
    a_key_given_twice_is_told_with_the_first_line();
    all_mistakes_are_counted_and_the_first_are_kept();
    long_lines_zero_bytes_and_long_values_are_told();
    a_mark_at_the_start_and_an_empty_file_are_fine();
    environment_is_read_and_strangers_are_passed_over();
    flags_are_read_and_told_by_their_name();
    rules_between_keys_are_checked();
    what_is_printed_reads_back_the_same();
    reload_takes_what_it_may_and_names_the_rest();
    files_of_the_directory_win_in_the_order_of_their_names();
    puts("17 passed, 0 failed");
    return 0;
}
