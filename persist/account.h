/*
 * account.h - users: sign-up, sign-in, and those whom a token brings.
 *
 * Walk:       from answer.c (requests); by way of password.c for the two that hash; to the store.
 * Threads:    the persistence thread.
 *
 * Invariants: (N1) signing in takes as long for a user who is not there, or has no password, as
 *                  for a wrong password.
 *             (N2) a user_id or username is told only once it is committed (batch.h, B3).
 */
#pragma once

#include "persist/thread.h"

/* Reserves the jobs in the plan. */
void account_reserve(struct persist *persist, struct mem_plan *plan);

/* Once the plan is sealed: the jobs are free. */
void account_init(struct persist *persist);

/* Answers PERSIST_REGISTER, PERSIST_LOGIN, PERSIST_USER_ENSURE and PERSIST_USER_GET, at once or
 * when its password is hashed. */
void account_request(struct persist *persist, uint32_t lane, const struct persist_user *request,
                     uint32_t size);

/* Goes on with the requests whose password is hashed by now. True: there was one. */
bool account_continue(struct persist *persist);
