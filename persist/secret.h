/*
 * secret.h - a configuration value that may lie elsewhere: in a file, or a systemd credential.
 *
 *   file:/etc/damso/redis_url       the first line of that file
 *   credential:redis_url            the same of $CREDENTIALS_DIRECTORY/redis_url (systemd
 *                                   LoadCredential=, LoadCredentialEncrypted=)
 *   anything else                   itself
 *
 * Threads:    main, at start.
 */
#pragma once

#include "core/check.h"

#include <stddef.h>

/* Resolves value into ret, terminated. A file that others than its owner and group may read is
 * refused, as is an empty one. key is how messages call the value ("[persist] redis_url"). 0, or
 * -errno with ret_why a sentence for people that names the key, the file and what to do, never the
 * secret. */
NODISCARD int secret_resolve(const char *key, const char *value, char *ret, size_t size,
                             char *ret_why, size_t why_size);
