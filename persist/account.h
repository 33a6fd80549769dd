/*
 * account.h - users: sign-up, sign-in, and those whom a token brings.
 *
 * Walk:       from answer.c (requests); by way of password.c for the two that hash; to the store.
 * Threads:    the answerer's.
 * Ownership:  jobs are the answerer's; its owner sets job_count before account_reserve.
 *
 * Invariants: (N1) signing in takes as long for a user who is not there, or has no password, as
 *                  for a wrong password.
 *             (N2) a user_id or username is told only once it is durable (in the embedded mode
 *                  batch.h, B3).
 */
#pragma once

#include "persist/answer.h"

/* Reserves job_count jobs in the plan. */
void account_reserve(struct answerer *answerer, struct mem_plan *plan);

/* Once the plan is sealed: the jobs are free. */
void account_init(struct answerer *answerer);

/* Answers PERSIST_REGISTER, PERSIST_LOGIN, PERSIST_USER_ENSURE and PERSIST_USER_GET, at once or
 * when its password is hashed. The first two are only for an answerer with passwords. */
void account_request(struct answerer *answerer, uint32_t lane, const struct persist_user *request,
                     uint32_t size);

/* Goes on with the requests whose password is hashed by now. True: there was one. */
bool account_continue(struct answerer *answerer);
