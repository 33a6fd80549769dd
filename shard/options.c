/* options.c - see options.h. */
#include "shard/options.h"

#include "core/os.h"
#include "shard/move.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const struct {
    const char *flag;
    const char *section, *key; /* NULL: not a configuration key */
    bool valued;
    enum option_action action;
    const char *help;
} flags[] = {
    {"--config", NULL, NULL, true, ACTION_RUN, "FILE   read this configuration file"},
    {"--port", "server", "port", true, ACTION_RUN,
     "N        listen on this port; 0 takes a free one"},
    {"--listen", "server", "listen", true, ACTION_RUN, "ADDRESS  listen on this address"},
    {"--data", "server", "data", true, ACTION_RUN, "DIR      keep everything in this directory"},
    {"--shards", "server", "shards", true, ACTION_RUN, "N      threads that serve clients"},
    {"--web", "server", "web", true, ACTION_RUN, "DIR       directory of the web client"},
    {"--salvage", NULL, NULL, false, ACTION_RUN,
     "       start with a damaged journal; losses are logged"},
    {"--move", NULL, NULL, true, ACTION_MOVE,
     "FROM TO  move a stopped server's data: embedded redis+mongodb, or back"},
    {"--check-config", NULL, NULL, false, ACTION_CHECK, "  check the configuration and end"},
    {"--print-default-config", NULL, NULL, false, ACTION_PRINT_DEFAULT,
     "  print a commented configuration file"},
    {"--plan", NULL, NULL, false, ACTION_PLAN, "          print the memory plan"},
    {"--version", NULL, NULL, false, ACTION_VERSION, "       print the version"},
    {"--help", NULL, NULL, false, ACTION_HELP, "          print this"},
};

enum { FLAGS = sizeof(flags) / sizeof(flags[0]) };

void options_print_help(void)
{
    (void)puts("damsod - a chat server: rooms with durable, ordered history over WebSocket\n");
    for (int i = 0; i < FLAGS; i++) {
        (void)printf("  %s %s\n", flags[i].flag, flags[i].help);
    }
    (void)puts("\nEvery key can also be set as DAMSO_SECTION_KEY in the environment.");
}

static int flag_index(const char *word)
{
    for (int i = 0; i < FLAGS; i++) {
        const size_t size = strlen(flags[i].flag);
        if (strncmp(word, flags[i].flag, size) == 0 &&
            (word[size] == '\0' || (word[size] == '=' && flags[i].valued))) {
            return i;
        }
    }
    return -1;
}

/* The value of the flag at words[*at], which may be the next word; NULL: there is none. */
static const char *flag_value(int count, char *const *words, int *at)
{
    const char *equals = strchr(words[*at], '=');
    if (equals != NULL) {
        return equals + 1;
    }
    return *at + 1 < count ? words[++*at] : NULL;
}

static const char *config_path(int count, char *const *words)
{
    for (int i = 1; i < count; i++) {
        const int flag = flag_index(words[i]);
        if (flag == 0) {
            return flag_value(count, words, &i);
        }
        if (flag > 0 && flags[flag].valued) {
            (void)flag_value(count, words, &i);
        }
    }
    return NULL;
}

static int read_flags(int count, char *const *words, struct config *config, struct options *options,
                      struct config_errors *errors)
{
    int error = 0;
    for (int i = 1; i < count; i++) {
        const int flag = flag_index(words[i]);
        if (flag < 0) {
            (void)fprintf(stderr, "damsod: %s: unknown flag; --help lists them\n", words[i]);
            return -EINVAL;
        }
        const char *name = flags[flag].flag;
        const char *value = flags[flag].valued ? flag_value(count, words, &i) : "";
        if (value == NULL) {
            (void)fprintf(stderr, "damsod: %s: a value is needed\n", name);
            return -EINVAL;
        }
        if (flags[flag].action == ACTION_MOVE &&
            move_words(value, i + 1 < count ? words[++i] : NULL, options) < 0) {
            return -EINVAL;
        }
        if (flags[flag].section != NULL &&
            config_set(config, flags[flag].section, flags[flag].key, value, name, errors) < 0) {
            error = -EINVAL;
        }
        options->action = flags[flag].action != ACTION_RUN ? flags[flag].action : options->action;
        options->salvage |= strcmp(name, "--salvage") == 0;
    }
    return error;
}

int options_read(int count, char *const *words, char *const *environment, struct config *config,
                 struct options *ret)
{
    static struct config_errors errors;
    const char *path = config_path(count, words);
    int error = 0;

    *ret = (struct options){.action = ACTION_RUN};
    errors.count = 0;
    config_defaults(config);
    if (path != NULL && config_file(config, path, &errors) < 0) {
        error = -EINVAL;
    }
    if (config_environment(config, environment, &errors) < 0) {
        error = -EINVAL;
    }
    if (read_flags(count, words, config, ret, &errors) < 0) {
        error = -EINVAL;
    }
    ret->shards = config->server_shards > 0 ? (uint32_t)config->server_shards : os_cpu_count();
    ret->shards = ret->shards < 64 ? ret->shards : 64;
    if (error == 0 && config_check(config, ret->shards, &errors) < 0) {
        error = -EINVAL;
    }
    if (errors.count > 0) {
        config_errors_print(&errors, stderr);
    }
    return error;
}
