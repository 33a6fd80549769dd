/* store_sqlite_user.c - the embedded store: accounts. */
#include "persist/store_sqlite.h"

#include <errno.h>

static struct store_sqlite *of(struct store *store)
{
    return (struct store_sqlite *)store; /* base is its first member */
}

int store_sqlite_user_create(struct store *base, const struct store_user *user)
{
    sqlite3_stmt *sql = of(base)->sql[SQL_USER_ADD];

    store_sqlite_bind_text(sql, 1, user->user_id);
    store_sqlite_bind_text(sql, 2, user->username);
    store_sqlite_bind_text(sql, 3, user->folded);
    store_sqlite_bind_text(sql, 4, user->display_name);
    store_sqlite_bind_text(sql, 5, user->password);
    store_sqlite_bind_number(sql, 6, user->created_ms);
    return store_sqlite_run(sql);
}

static int take_user(struct store_sqlite *store, sqlite3_stmt *sql, struct slice by,
                     struct store_user *ret)
{
    store_sqlite_bind_text(sql, 1, by);
    const int found = store_sqlite_next(sql);
    if (found <= 0) {
        return found < 0 ? found : -ENOENT;
    }
    store_sqlite_keep_begin(store);
    *ret = (struct store_user){
        .user_id = store_sqlite_keep(store, sql, 0),
        .username = store_sqlite_keep(store, sql, 1),
        .display_name = store_sqlite_keep(store, sql, 2),
        .password = store_sqlite_keep(store, sql, 3),
        .created_ms = store_sqlite_number(sql, 4),
    };
    (void)sqlite3_reset(sql);
    return 0;
}

int store_sqlite_user_by_id(struct store *base, struct slice user_id, struct store_user *ret)
{
    struct store_sqlite *store = of(base);
    return take_user(store, store->sql[SQL_USER_BY_ID], user_id, ret);
}

int store_sqlite_user_by_name(struct store *base, struct slice folded, struct store_user *ret)
{
    struct store_sqlite *store = of(base);
    return take_user(store, store->sql[SQL_USER_BY_NAME], folded, ret);
}
