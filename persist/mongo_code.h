/*
 * mongo_code.h - what a MongoDB server says went wrong, and what it means to us.
 *
 * Walk:       from persist/mongo.c, for every error of a server.
 * Threads:    any; nothing here has state.
 */
#pragma once

#include <bson/bson.h>
#include <stdbool.h>
#include <stdint.h>

/* -EAGAIN, -EEXIST, -EACCES, -EBADMSG, -EMSGSIZE, -ENOTSUP or -EINVAL, as persist/mongo.h says of
 * mongo_errno. Codes and names: src/mongo/base/error_codes.yml of MongoDB. */
int mongo_code_errno(uint32_t code);

/* Whether a reply's errorLabels say that it may go well the next time. NULL: no reply. */
bool mongo_code_says_retry(const bson_t *reply);

/* The document {code, errmsg} that iter is at, as an error of that domain of the driver's. */
bson_error_t mongo_code_said(const bson_iter_t *document, uint32_t domain);
