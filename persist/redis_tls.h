/*
 * redis_tls.h - TLS 1.2 and later over a connected, non-blocking socket, for rediss://.
 *
 * Walk:       from persist/redis.c; the only file of persist/ that names OpenSSL.
 * Threads:    as its connection.
 * Ownership:  the caller owns the struct and the socket. OpenSSL allocates for itself.
 *
 *     redis_tls_open .. { redis_tls_begin, redis_tls_step until 0, _read, _write, redis_tls_end }
 * .. redis_tls_close
 *
 * Invariants: (T1) nothing is read or written before the server has shown a certificate that a
 *                  trusted authority signed for this host (RFC 9525: a name by its DNS-ID, an
 *                  address by its IP-ID).
 */
#pragma once

#include "core/check.h"

#include <stddef.h>
#include <sys/types.h>

struct ssl_st;
struct ssl_ctx_st;
struct bio_method_st;

struct redis_tls {
    struct ssl_ctx_st *context;
    struct bio_method_st *method;
    struct ssl_st *ssl;
    int socket;
    short wants;     /* after -EAGAIN: POLLIN or POLLOUT, whatever was asked for */
    const char *why; /* of the last error but -EAGAIN and those of the socket; static text */
};

/* ca_file: PEM; NULL or empty: the system's. 0, -EINVAL or -ENOMEM with ret_why for people. Close
 * it in either case. */
NODISCARD int redis_tls_open(struct redis_tls *tls, const char *ca_file, char *ret_why,
                             size_t why_size);
void redis_tls_close(struct redis_tls *tls);

/* Prepares the handshake. host: a name, or an address without brackets. 0 or -ENOMEM. */
NODISCARD int redis_tls_begin(struct redis_tls *tls, int socket, const char *host);

/* Goes on with the handshake: 0 when it is done, -EAGAIN, -EKEYREJECTED the certificate is not to
 * be trusted, -EPROTO, or -errno. */
NODISCARD int redis_tls_step(struct redis_tls *tls);

/* Bytes, 0 at the end, -EAGAIN, or -errno. */
NODISCARD ssize_t redis_tls_read(struct redis_tls *tls, void *bytes, size_t size);
NODISCARD ssize_t redis_tls_write(struct redis_tls *tls, const void *bytes, size_t size);

/* Forgets the session; the socket stays. */
void redis_tls_end(struct redis_tls *tls);
