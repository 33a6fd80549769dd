/* move.c - see move.h; docs/MOVE.md is the same for operators. */
#include "shard/move.h"

#include "core/log.h"
#include "core/os.h"
#include "fileio/recovery.h"
#include "persist/move.h"
#include "persist/persist.h"
#include "shard/server.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    PATH_BYTES = 512,
    WHY_BYTES = 1200,
    MARK_BYTES = 32,
    MODES = 2,
    UNMARKED = MODES, /* a directory without a mark */
    SECOND_NS = 1000 * 1000 * 1000,
};

static const char *const modes[MODES] = {"embedded", "redis+mongodb"};

static const char *const phases[] = {[MOVE_PREPARING] = "preparing",
                                     [MOVE_CHECKING] = "checking the target",
                                     [MOVE_COPYING] = "copying",
                                     [MOVE_VERIFYING] = "verifying"};

/* --- the mark --- */

static int path_of(const char *data, const char *name, char ret[PATH_BYTES], char *ret_why,
                   size_t why_size)
{
    const int length = snprintf(ret, PATH_BYTES, "%s/%s", data, name);

    if (length < 0 || length >= PATH_BYTES) {
        (void)snprintf(ret_why, why_size, "server.data is too long a path");
        return -ENAMETOOLONG;
    }
    return 0;
}

/* Whether there is such a file: 1, 0, or -errno with the sentence. */
static int has_file(const char *data, const char *name, char *ret_why, size_t why_size)
{
    char path[PATH_BYTES];
    struct stat status;
    const int error = path_of(data, name, path, ret_why, why_size);

    if (error < 0) {
        return error;
    }
    if (stat(path, &status) == 0) {
        return 1;
    }
    if (errno == ENOENT || errno == ENOTDIR) {
        return 0;
    }
    const int failure = -errno;
    (void)snprintf(ret_why, why_size, "cannot look at %s: %s", path, os_error(failure));
    return failure;
}

/* The mode that a mark names, or UNMARKED: 0 or -errno with the sentence. */
static int read_mark(const char *data, uint64_t *ret, char *ret_why, size_t why_size)
{
    char path[PATH_BYTES];
    char text[MARK_BYTES] = "";
    int error = path_of(data, "store", path, ret_why, why_size);

    if (error < 0) {
        return error;
    }
    const int file = os_file_open(path, 0);
    if (file == -ENOENT) {
        *ret = UNMARKED;
        return 0;
    }
    const int64_t size = file < 0 ? file : os_file_read(file, text, sizeof(text) - 1, 0);
    if (file >= 0) {
        os_file_close(file);
    }
    if (size < 0) {
        (void)snprintf(ret_why, why_size, "cannot read %s: %s", path, os_error((int)size));
        return (int)size;
    }
    text[strcspn(text, "\n")] = '\0';
    for (uint64_t mode = 0; mode < MODES; mode++) {
        if (strcmp(text, modes[mode]) == 0) {
            *ret = mode;
            return 0;
        }
    }
    (void)snprintf(ret_why, why_size,
                   "%s must say embedded or redis+mongodb: where the data of this directory is",
                   path);
    return -EBADMSG;
}

static int write_file(const char *path, const char *text)
{
    const int file = os_file_open(path, OS_OPEN_WRITE | OS_OPEN_CREATE);

    if (file < 0) {
        return file;
    }
    int error = os_file_write(file, text, strlen(text), 0);
    error = error < 0 ? error : os_file_sync(file);
    os_file_close(file);
    return error;
}

/* Durable when it returns 0: the old mark or the new one is there at every moment. */
static int write_mark(const char *data, uint64_t mode, char *ret_why, size_t why_size)
{
    char path[PATH_BYTES];
    char next[PATH_BYTES];
    char text[MARK_BYTES];
    int error = path_of(data, "store", path, ret_why, why_size);

    error = error < 0 ? error : path_of(data, "store.new", next, ret_why, why_size);
    if (error < 0) {
        return error;
    }
    (void)snprintf(text, sizeof(text), "%s\n", modes[mode]);
    error = os_file_remove(next); /* of a crash */
    error = error == -ENOENT ? 0 : error;
    error = error < 0 ? error : write_file(next, text);
    error = error < 0 ? error : os_file_rename(next, path);
    error = error < 0 ? error : os_directory_sync(data);
    if (error < 0) {
        (void)snprintf(ret_why, why_size, "cannot write %s: %s", path, os_error(error));
    }
    return error;
}

static int refuse_mode(const char *data, uint64_t found, uint64_t wanted, char *ret_why,
                       size_t why_size)
{
    (void)snprintf(ret_why, why_size,
                   "the data of %s is in %s, and persist.mode is %s: set persist.mode = %s, move "
                   "it with --move %s %s, or name another directory with --data",
                   data, modes[found], modes[wanted], modes[found], modes[found], modes[wanted]);
    return -EBADF;
}

int move_check_mode(const char *data, uint64_t mode, char *ret_why, size_t why_size)
{
    uint64_t found = UNMARKED;
    int error = read_mark(data, &found, ret_why, why_size);

    CHECK(mode < MODES);
    if (error == 0 && found == UNMARKED) {
        const int has = has_file(data, "damso.db", ret_why, why_size);
        error = has < 0 ? has : 0;
        found = has > 0 ? MOVE_EMBEDDED : mode;
        if (error == 0 && found == mode) {
            error = write_mark(data, mode, ret_why, why_size);
        }
    }
    if (error == 0 && found != mode) {
        error = refuse_mode(data, found, mode, ret_why, why_size);
    }
    return error;
}

/* --- words --- */

static uint64_t mode_of(const char *word)
{
    uint64_t mode = 0;

    while (mode < MODES && (word == NULL || strcmp(word, modes[mode]) != 0)) {
        mode++;
    }
    return mode;
}

int move_words(const char *from, const char *to, struct options *options)
{
    options->move_from = (uint32_t)mode_of(from);
    options->move_to = (uint32_t)mode_of(to);
    if (options->move_from == MODES || options->move_to == MODES ||
        options->move_from == options->move_to) {
        (void)fprintf(stderr, "damsod: --move: two words are needed: embedded redis+mongodb, or "
                              "redis+mongodb embedded\n");
        return -EINVAL;
    }
    return 0;
}

/* --- the command --- */

struct command {
    const struct config *config;
    const struct options *options;
    struct move *move;
    const char *data;
    int lock;
    bool stopped;       /* by a signal */
    bool replay_failed; /* and move_why says how */
    sigset_t signals;
    uint64_t began_ns;
    uint64_t told_ns;
    uint64_t told_events;
    enum move_phase told_phase;
    char why[WHY_BYTES];
};

static void tell(struct command *command, const struct move_progress *progress)
{
    const uint64_t now_ns = os_now_ns();
    const bool same = progress->phase == command->told_phase;
    const uint64_t events = same ? progress->events - command->told_events : progress->events;
    const uint64_t since_ns = now_ns - command->told_ns;

    (void)printf("%s: users %llu, rooms %llu, members %llu, events %llu (%llu/s)\n",
                 phases[progress->phase], (unsigned long long)progress->users,
                 (unsigned long long)progress->rooms, (unsigned long long)progress->members,
                 (unsigned long long)progress->events,
                 (unsigned long long)((double)events * 1e9 / (double)since_ns));
    (void)fflush(stdout);
    command->told_ns = now_ns;
    command->told_events = progress->events;
    command->told_phase = progress->phase;
}

static int tick(void *context, const struct move_progress *progress)
{
    struct command *command = context;
    const struct timespec now = {0};

    command->stopped = command->stopped || sigtimedwait(&command->signals, NULL, &now) > 0;
    if (os_now_ns() - command->told_ns >= SECOND_NS) {
        tell(command, progress);
        log_flush();
    }
    return command->stopped ? -ECANCELED : 0;
}

/* As shard/server.c locks it. */
static int lock_data(struct command *command)
{
    char path[PATH_BYTES];
    int error = 0;

    if (command->options->move_from == MOVE_REDIS_MONGODB) {
        error = os_directory_make(command->data);
    }
    error = error < 0 ? error
                      : path_of(command->data, "lock", path, command->why, sizeof(command->why));
    if (error == 0) {
        command->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        error = command->lock < 0 ? -errno : 0;
    }
    if (error < 0) {
        (void)snprintf(command->why, sizeof(command->why), "cannot open the data directory %s: %s",
                       command->data, os_error(error));
        return error;
    }
    if (flock(command->lock, LOCK_EX | LOCK_NB) < 0) {
        (void)snprintf(command->why, sizeof(command->why),
                       "another damsod uses the data directory %s: stop it, or choose another one "
                       "with --data",
                       command->data);
        return -EBUSY;
    }
    return 0;
}

static int refuse_directory(struct command *command, int error, const char *what)
{
    (void)snprintf(command->why, sizeof(command->why), "%s %s", command->data, what);
    return error;
}

/* Whose the directory is. 1: the data was moved already. */
static int check_directory(struct command *command)
{
    const uint64_t from = command->options->move_from;
    const char *data = command->data;
    uint64_t found = UNMARKED;
    int error = read_mark(data, &found, command->why, sizeof(command->why));
    const int store = has_file(data, "damso.db", command->why, sizeof(command->why));

    if (error < 0 || store < 0) {
        return error < 0 ? error : store;
    }
    if (found == command->options->move_to) {
        return 1;
    }
    if (from == MOVE_EMBEDDED && store == 0) {
        return refuse_directory(command, -ENOENT,
                                "has no damso.db, so there is nothing to move: see --data");
    }
    if (from == MOVE_REDIS_MONGODB && store > 0 && found == UNMARKED) {
        return refuse_directory(
            command, -EEXIST,
            "holds an embedded store (damso.db): name another directory with --data");
    }
    if (found == UNMARKED) {
        /* From here on a copy that is not whole is not taken for the data. */
        error = write_mark(data, from, command->why, sizeof(command->why));
    }
    return error;
}

/* --- the source's journals --- */

static int replay_embedded(void *context, const void *record, uint32_t size)
{
    struct persist *persist = *(struct persist **)context;
    return persist_replay(persist, record, size, false);
}

static int salvage_embedded(void *context, const void *record, uint32_t size)
{
    struct persist *persist = *(struct persist **)context;
    return persist_replay(persist, record, size, true);
}

static int replay_stores(void *context, const void *record, uint32_t size)
{
    struct command *command = context;
    const int error = move_replay(command->move, record, size);

    command->replay_failed = error < 0;
    return error;
}

/* Every journal of the directory into the callback, oldest first. */
static int read_journals(struct command *command, recovery_record callback, void *context,
                         uint32_t *ret_first, uint32_t *ret_count)
{
    const bool salvage = command->options->salvage;
    char path[SEGMENT_PATH_MAX];
    struct recovery_report report;
    int error = recovery_generations(command->data, salvage, ret_first, ret_count, command->why,
                                     sizeof(command->why));

    for (uint32_t i = 0; error == 0 && i <= *ret_count; i++) {
        const uint32_t generation = i < *ret_count ? *ret_first + i : 0; /* 0: `journal`, last */
        report = (struct recovery_report){0};
        error = recovery_directory(command->data, generation, path);
        error = error < 0 ? error
                          : recovery_run(path, salvage, callback, context, &report, command->why,
                                         sizeof(command->why));
        if (error == 0 && report.records > 0) {
            (void)printf("journal: records %llu, bytes %llu\n", (unsigned long long)report.records,
                         (unsigned long long)report.bytes);
        }
    }
    return error;
}

/* What is in the store is no longer needed in journals. */
static int free_journals(struct command *command, uint32_t first, uint32_t count)
{
    char path[SEGMENT_PATH_MAX];
    int error = 0;

    for (uint32_t i = 0; error == 0 && i < count; i++) {
        error = recovery_drop(command->data, first + i, command->why, sizeof(command->why));
    }
    if (error < 0) {
        return error;
    }
    error = recovery_directory(command->data, 0, path);
    error = error < 0 ? error : recovery_retire(path);
    if (error < 0) {
        (void)snprintf(command->why, sizeof(command->why), "cannot free the journal in %s: %s",
                       command->data, os_error(error));
    }
    return error;
}

/* As an ordinary start does it (shard/server.c), and a clean stop behind it. */
static int complete_embedded(struct command *command)
{
    static struct config config;
    struct persist *persist = NULL;
    uint32_t first = 0;
    uint32_t count = 0;

    config = *command->config;
    config.persist_mode = MOVE_EMBEDDED;
    int error = persist_open(&config, &persist, command->why, sizeof(command->why));
    if (error < 0) {
        return error;
    }
    error = read_journals(command, command->options->salvage ? salvage_embedded : replay_embedded,
                          &persist, &first, &count);
    if (error == 0) {
        error = persist_replay_end(persist);
    }
    error = error < 0 ? error : free_journals(command, first, count);
    if (error < 0 && command->why[0] == '\0') {
        (void)snprintf(command->why, sizeof(command->why),
                       "cannot bring the journal into the store %s: %s", command->data,
                       os_error(error));
    }
    persist_close(persist);
    return error;
}

/* The words of what failed in persist/. */
static int tell_move(struct command *command, int error)
{
    if (error < 0) {
        (void)snprintf(command->why, sizeof(command->why), "%s", move_why(command->move));
    }
    return error;
}

static int complete_stores(struct command *command)
{
    uint32_t first = 0;
    uint32_t count = 0;
    int error = tell_move(command, move_claim(command->move));

    if (error < 0) {
        return error;
    }
    error = read_journals(command, replay_stores, command, &first, &count);
    if (error < 0) {
        return command->replay_failed ? tell_move(command, error) : error;
    }
    error = tell_move(command, move_replay_end(command->move));
    return error < 0 ? error : free_journals(command, first, count);
}

/* --- all of it --- */

static int open_move(struct command *command)
{
    const struct move_options options = {
        .config = command->config,
        .from = (enum move_side)command->options->move_from,
        .to = (enum move_side)command->options->move_to,
        .salvage = command->options->salvage,
        .tick = tick,
        .context = command,
    };
    return move_open(&options, &command->move, command->why, sizeof(command->why));
}

static void tell_end(const struct command *command, const struct move_progress *moved)
{
    (void)printf("moved %s to %s in %.1f s: users %llu, rooms %llu, members %llu, events %llu; "
                 "verified. Set persist.mode = %s\n",
                 modes[command->options->move_from], modes[command->options->move_to],
                 (double)(os_now_ns() - command->began_ns) / 1e9, (unsigned long long)moved->users,
                 (unsigned long long)moved->rooms, (unsigned long long)moved->members,
                 (unsigned long long)moved->events, modes[command->options->move_to]);
    (void)fflush(stdout);
}

static int run(struct command *command)
{
    struct move_progress moved = {0};
    const bool embedded = command->options->move_from == MOVE_EMBEDDED;
    int error = lock_data(command);

    error = error < 0 ? error : check_directory(command);
    if (error > 0) {
        (void)printf("the data of %s is in %s already (%s/store says so): nothing to move\n",
                     command->data, embedded ? modes[1] : modes[0], command->data);
        return 0;
    }
    error = error == 0 && embedded ? complete_embedded(command) : error;
    error = error < 0 ? error : open_move(command);
    error = error == 0 && !embedded ? complete_stores(command) : error;
    if (error < 0) {
        return error;
    }
    error = tell_move(command, move_run(command->move, &moved));
    if (error < 0) {
        return error;
    }
    error =
        write_mark(command->data, command->options->move_to, command->why, sizeof(command->why));
    if (error == 0) {
        tell_end(command, &moved);
    }
    return error;
}

int move_main(const struct config *config, const struct options *options)
{
    static struct command command;

    command = (struct command){.config = config,
                               .options = options,
                               .data = config->server_data,
                               .lock = -1,
                               .began_ns = os_now_ns(),
                               .told_ns = os_now_ns()};
    /* Blocked before any thread is made: looked for between two batches. */
    (void)sigemptyset(&command.signals);
    (void)sigaddset(&command.signals, SIGTERM);
    (void)sigaddset(&command.signals, SIGINT);
    (void)pthread_sigmask(SIG_BLOCK, &command.signals, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    (void)umask(077);
    log_init((enum log_level)config->log_level, (enum log_prefix)config->log_priority_prefix);
    const int error = run(&command);
    move_close(command.move);
    if (command.lock >= 0) {
        os_file_close(command.lock);
    }
    if (error < 0) {
        log_error("cannot move: %s", command.why[0] != '\0' ? command.why : os_error(error));
    }
    log_end();
    if (error < 0) {
        return command.stopped ? EXIT_RUNTIME : EXIT_DATA;
    }
    return EXIT_OK;
}
