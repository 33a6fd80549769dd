/* account.c - see account.h for the invariants N1 and N2 named below. */
#include "persist/account.h"

#include "core/check.h"
#include "persist/username.h"

#include <errno.h>
#include <string.h>

enum {
    USER_ID_BYTES_MAX = 64,
    USER_ID_GIVEN = 22, /* characters of a user_id that we make: 128 bits to the base 62 */
    DISPLAY_BYTES_MAX = 256,
    VARIANTS_MAX = 16, /* of 1.7 million each: enough unless the table is full of them */
};

/* A request that waits for its password. */
struct account_job {
    struct password_job password; /* first, so that a job done is found again */
    struct account_job *next;     /* free ones */
    uint32_t lane;
    uint16_t op;
    uint64_t token;
    uint64_t created_ms;
    uint32_t user_bytes, username_bytes, display_bytes;
    char user_id[USER_ID_BYTES_MAX];
    char username[USERNAME_BYTES_MAX];
    char display_name[DISPLAY_BYTES_MAX];
};

void account_reserve(struct answerer *answerer, struct mem_plan *plan)
{
    answerer->jobs =
        mem_reserve(plan, "sign-ins in progress", sizeof(*answerer->jobs), answerer->job_count);
}

void account_init(struct answerer *answerer)
{
    struct account_job *jobs = answerer->jobs;

    for (uint32_t i = 0; i + 1 < answerer->job_count; i++) {
        jobs[i].next = &jobs[i + 1];
    }
}

/* --- replies --- */

/* The reply about one user; status < 0: nothing but the status. Returns its size. */
static uint32_t make_reply(uint8_t reply[ANSWER_REPLY_MAX], uint64_t token, int status,
                           const struct store_user *user)
{
    const struct store_user none = {0};
    const struct store_user *shown = status == 0 ? user : &none;
    const struct persist_user head = {
        .head = {.op = PERSIST_USER, .status = (int16_t)status, .token = token},
        .created_ms = shown->created_ms,
        .user_bytes = (uint16_t)shown->user_id.size,
        .username_bytes = (uint16_t)shown->username.size,
        .display_bytes = (uint16_t)shown->display_name.size,
    };
    const struct slice parts[] = {shown->user_id, shown->username, shown->display_name};
    uint32_t size = sizeof(head);

    memcpy(reply, &head, sizeof(head));
    for (int i = 0; i < 3; i++) {
        CHECK(parts[i].size <= ANSWER_REPLY_MAX - size);
        if (parts[i].size > 0) {
            memcpy(reply + size, parts[i].data, parts[i].size);
        }
        size += parts[i].size;
    }
    return size;
}

static void reply_user(struct answerer *answerer, uint32_t lane, uint64_t token, int status,
                       const struct store_user *user)
{
    uint8_t reply[ANSWER_REPLY_MAX];
    const uint32_t size = make_reply(reply, token, status, user);
    answerer->ops->reply_behind(answerer, lane, reply, size);
}

static void reply_written(struct answerer *answerer, uint32_t lane, uint64_t token,
                          const struct store_user *user)
{
    uint8_t reply[ANSWER_REPLY_MAX];
    const uint32_t size = make_reply(reply, token, 0, user);
    answerer->ops->written(answerer, lane, reply, size);
}

/* --- writing --- */

/* 128 random bits in 22 characters of A-Z a-z 0-9 (62^22 > 2^128). */
static void make_user_id(char user_id[USER_ID_GIVEN])
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    unsigned __int128 random;

    os_random(&random, sizeof(random));
    for (int i = 0; i < USER_ID_GIVEN; i++) {
        user_id[i] = letters[(unsigned)(random % 62)];
        random /= 62;
    }
}

static void make_suffix(char suffix[USERNAME_SUFFIX_LENGTH])
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    uint32_t random;

    os_random(&random, sizeof(random));
    for (int i = 0; i < USERNAME_SUFFIX_LENGTH; i++) {
        suffix[i] = letters[random % 36];
        random /= 36;
    }
}

/* Writes the user: 0, -EEXIST, or -EAGAIN. */
static int write_user(struct answerer *answerer, struct store_user *user)
{
    if (answerer->ops->write(answerer) < 0) {
        return -EAGAIN;
    }
    const struct username folded = username_fold(user->username);
    user->folded = username_slice(&folded);
    user->created_ms = os_wall_ms();
    const int error = answerer->store->ops->user_create(answerer->store, user);
    user->folded = (struct slice){0};
    if (error < 0 && error != -EEXIST) {
        answerer->ops->refuse(answerer, error);
        return -EAGAIN;
    }
    return error;
}

/* Whether a user has the name, without regard to case: 1, 0 or -errno. */
static int name_is_taken(struct answerer *answerer, struct slice username)
{
    const struct username folded = username_fold(username);
    struct store_user user;
    const int error =
        answerer->store->ops->user_by_name(answerer->store, username_slice(&folded), &user);
    return error == -ENOENT ? 0 : error == 0 ? 1 : error;
}

/* --- passwords --- */

static struct account_job *take_job(struct answerer *answerer)
{
    struct account_job *job = answerer->jobs;
    answerer->jobs = job != NULL ? job->next : NULL;
    return job;
}

static void give_job(struct answerer *answerer, struct account_job *job)
{
    job->next = answerer->jobs;
    answerer->jobs = job;
}

static void copy_part(char *to, uint32_t *ret_size, struct slice from)
{
    if (from.size > 0) {
        memcpy(to, from.data, from.size);
    }
    *ret_size = from.size;
}

/* Hands a password to the pool: 0, or -EAGAIN. The user's texts are within their bounds. */
static int submit(struct answerer *answerer, uint32_t lane, const struct persist_head *head,
                  const struct store_user *user, struct slice password)
{
    CHECK(answerer->passwords != NULL); /* else passwords are another one's */
    struct account_job *job = take_job(answerer);
    if (job == NULL) {
        return -EAGAIN;
    }
    job->lane = lane;
    job->op = head->op;
    job->token = head->token;
    job->created_ms = user->created_ms;
    copy_part(job->user_id, &job->user_bytes, user->user_id);
    copy_part(job->username, &job->username_bytes, user->username);
    copy_part(job->display_name, &job->display_bytes, user->display_name);
    copy_part(job->password.password, &job->password.password_size, password);
    job->password.task = head->op == PERSIST_LOGIN ? PASSWORD_VERIFY : PASSWORD_HASH;
    memset(job->password.hash, 0, sizeof(job->password.hash));
    memcpy(job->password.hash, user->password.data, user->password.size);
    const int error = password_submit(answerer->passwords, &job->password);
    if (error < 0) {
        memset(job->password.password, 0, sizeof(job->password.password));
        give_job(answerer, job);
    }
    return error;
}

static bool password_fits(struct slice password)
{
    return password.size >= 1 && password.size <= PASSWORD_BYTES_MAX;
}

static void request_register(struct answerer *answerer, uint32_t lane,
                             const struct persist_head *head, const struct store_user *user,
                             struct slice password)
{
    int status = -EINVAL;

    if (username_is_valid(user->username) &&
        username_is_text(user->display_name, DISPLAY_BYTES_MAX) && password_fits(password)) {
        const int taken = name_is_taken(answerer, user->username);
        const struct store_user wanted = {
            .username = user->username, .display_name = user->display_name, .password = SLICE("")};
        status = taken > 0   ? -EEXIST
                 : taken < 0 ? -EAGAIN
                             : submit(answerer, lane, head, &wanted, password);
    }
    if (status < 0) {
        reply_user(answerer, lane, head->token, status, NULL);
    }
}

/* Has a password, and nothing longer than we ever store (somebody may have edited the store). */
static bool may_sign_in(const struct store_user *user)
{
    return user->password.size > 0 && user->password.size < PASSWORD_HASH_SIZE &&
           user->user_id.size <= USER_ID_BYTES_MAX && user->username.size <= USERNAME_BYTES_MAX &&
           user->display_name.size <= DISPLAY_BYTES_MAX;
}

static void request_login(struct answerer *answerer, uint32_t lane, const struct persist_head *head,
                          struct slice username, struct slice password)
{
    const struct store_user nobody = {
        .password = {password_of_nobody, (uint32_t)strlen(password_of_nobody)}};
    struct store_user user;
    int status = -EINVAL;

    if (password_fits(password)) {
        const struct username folded = username_fold(username);
        answerer->ops->settle(answerer); /* N2 */
        status = username.size > USERNAME_BYTES_MAX
                     ? -ENOENT
                     : answerer->store->ops->user_by_name(answerer->store, username_slice(&folded),
                                                          &user);
        if (status == 0 || status == -ENOENT) {
            const bool known = status == 0 && may_sign_in(&user);
            status = submit(answerer, lane, head, known ? &user : &nobody, password); /* N1 */
        } else {
            status = -EAGAIN;
        }
    }
    if (status < 0) {
        reply_user(answerer, lane, head->token, status, NULL);
    }
}

static void finish_register(struct answerer *answerer, const struct account_job *job)
{
    char user_id[USER_ID_GIVEN];
    struct store_user user = {
        .user_id = {user_id, sizeof(user_id)},
        .username = {job->username, job->username_bytes},
        .display_name = {job->display_name, job->display_bytes},
        .password = {job->password.hash, (uint32_t)strlen(job->password.hash)},
    };

    make_user_id(user_id);
    const int status = job->password.status == 0 ? write_user(answerer, &user) : -EAGAIN;
    if (status == 0) {
        reply_written(answerer, job->lane, job->token, &user);
    } else {
        reply_user(answerer, job->lane, job->token, status, NULL);
    }
}

static void finish_login(struct answerer *answerer, const struct account_job *job)
{
    const struct store_user user = {
        .created_ms = job->created_ms,
        .user_id = {job->user_id, job->user_bytes},
        .username = {job->username, job->username_bytes},
        .display_name = {job->display_name, job->display_bytes},
    };
    /* Without a user_id it was nobody, whatever the check says. */
    const int status = job->password.status == 0 && job->user_bytes > 0 ? 0 : -EACCES;
    reply_user(answerer, job->lane, job->token, status, &user);
}

bool account_continue(struct answerer *answerer)
{
    bool any = false;

    for (uint32_t i = 0; i < answerer->job_count; i++) {
        struct password_job *done = password_take(answerer->passwords);
        if (done == NULL) {
            break;
        }
        struct account_job *job = (struct account_job *)done; /* password is its first member */
        if (job->op == PERSIST_REGISTER) {
            finish_register(answerer, job);
        } else {
            finish_login(answerer, job);
        }
        give_job(answerer, job);
        any = true;
    }
    return any;
}

/* --- users who come with a token --- */

/* The name that the user will have: what was wanted if it is valid and free, else a variant: 0, or
 * -EAGAIN. */
static int choose_name(struct answerer *answerer, struct slice wanted, struct username *ret)
{
    int taken = 1;

    if (username_is_valid(wanted)) {
        ret->size = wanted.size;
        memcpy(ret->bytes, wanted.data, wanted.size);
        taken = name_is_taken(answerer, wanted);
    }
    for (int attempt = 0; taken > 0 && attempt < VARIANTS_MAX; attempt++) {
        char suffix[USERNAME_SUFFIX_LENGTH];
        make_suffix(suffix);
        *ret = username_variant(wanted, suffix);
        taken = name_is_taken(answerer, username_slice(ret));
    }
    return taken == 0 ? 0 : -EAGAIN;
}

/* The user, made if need be: 1 it was made, 0 it was there, -EEXIST another answerer took the id or
 * the name between the look and the writing, -EAGAIN. name holds the text of one that was made. */
static int find_or_make(struct answerer *answerer, struct slice user_id, struct slice wanted,
                        struct username *name, struct store_user *ret)
{
    int error = answerer->store->ops->user_by_id(answerer->store, user_id, ret);

    if (error != -ENOENT) {
        return error == 0 ? 0 : -EAGAIN;
    }
    error = choose_name(answerer, wanted, name);
    if (error < 0) {
        return error;
    }
    *ret = (struct store_user){.user_id = user_id, .username = username_slice(name)};
    error = write_user(answerer, ret);
    return error == 0 ? 1 : error;
}

static void request_ensure(struct answerer *answerer, uint32_t lane,
                           const struct persist_head *head, struct slice user_id,
                           struct slice wanted)
{
    struct store_user user;
    struct username name;
    int status = -EINVAL;

    if (user_id.size >= 1 && username_is_text(user_id, USER_ID_BYTES_MAX)) {
        status = find_or_make(answerer, user_id, wanted, &name, &user);
        if (status == -EEXIST) { /* two first requests of one user, perhaps: now it is there */
            status = find_or_make(answerer, user_id, wanted, &name, &user);
        }
        status = status == -EEXIST ? -EAGAIN : status;
    }
    if (status == 1) {
        reply_written(answerer, lane, head->token, &user);
    } else {
        reply_user(answerer, lane, head->token, status, &user);
    }
}

static void request_get(struct answerer *answerer, uint32_t lane, const struct persist_head *head,
                        struct slice user_id)
{
    struct store_user user;
    int status = answerer->store->ops->user_by_id(answerer->store, user_id, &user);

    status = status == 0 || status == -ENOENT ? status : -EAGAIN;
    reply_user(answerer, lane, head->token, status, &user);
}

void account_request(struct answerer *answerer, uint32_t lane, const struct persist_user *request,
                     uint32_t size)
{
    const char *tail = (const char *)(request + 1);
    const struct slice user_id = {tail, request->user_bytes};
    const struct slice username = {user_id.data + user_id.size, request->username_bytes};
    const struct slice password = {username.data + username.size, request->password_bytes};
    const struct slice display = {password.data + password.size, request->display_bytes};
    const struct store_user user = {.username = username, .display_name = display};

    CHECK(size == sizeof(*request) + user_id.size + username.size + password.size + display.size);
    switch (request->head.op) {
    case PERSIST_REGISTER:
        request_register(answerer, lane, &request->head, &user, password);
        break;
    case PERSIST_LOGIN:
        request_login(answerer, lane, &request->head, username, password);
        break;
    case PERSIST_USER_ENSURE:
        request_ensure(answerer, lane, &request->head, user_id, username);
        break;
    default:
        CHECK(request->head.op == PERSIST_USER_GET);
        request_get(answerer, lane, &request->head, user_id);
        break;
    }
}
