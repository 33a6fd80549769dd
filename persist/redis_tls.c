/* redis_tls.c - see redis_tls.h for the invariant T1 named below. */
#include "persist/redis_tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>

/* --- the socket, as OpenSSL sees it: its own BIO would write() without MSG_NOSIGNAL --- */

static int bio_write(BIO *bio, const char *bytes, int size)
{
    const struct redis_tls *tls = BIO_get_data(bio);
    const ssize_t sent = send(tls->socket, bytes, (size_t)size, MSG_NOSIGNAL);

    BIO_clear_retry_flags(bio);
    if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_write(bio);
    }
    return (int)sent;
}

static int bio_read(BIO *bio, char *bytes, int size)
{
    const struct redis_tls *tls = BIO_get_data(bio);
    const ssize_t got = recv(tls->socket, bytes, (size_t)size, 0);

    BIO_clear_retry_flags(bio);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        BIO_set_retry_read(bio);
    }
    return (int)got;
}

static long bio_ctrl(BIO *bio, int command, long number, void *pointer)
{
    (void)bio;
    (void)number;
    (void)pointer;
    return command == BIO_CTRL_FLUSH ? 1 : 0;
}

/* --- opening --- */

static bool make_context(struct redis_tls *tls)
{
    tls->context = SSL_CTX_new(TLS_client_method());
    tls->method = BIO_meth_new(BIO_TYPE_SOCKET, "redis");
    if (tls->context == NULL || tls->method == NULL ||
        BIO_meth_set_write(tls->method, bio_write) != 1 ||
        BIO_meth_set_read(tls->method, bio_read) != 1 ||
        BIO_meth_set_ctrl(tls->method, bio_ctrl) != 1 ||
        SSL_CTX_set_min_proto_version(tls->context, TLS1_2_VERSION) != 1) {
        return false;
    }
    SSL_CTX_set_verify(tls->context, SSL_VERIFY_PEER, NULL); /* T1 */
    (void)SSL_CTX_set_mode(tls->context,
                           SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    (void)SSL_CTX_set_options(tls->context, SSL_OP_NO_RENEGOTIATION);
    return true;
}

int redis_tls_open(struct redis_tls *tls, const char *ca_file, char *ret_why, size_t why_size)
{
    const bool own = ca_file != NULL && ca_file[0] != 0;

    *tls = (struct redis_tls){.socket = -1, .why = ""};
    if (!make_context(tls)) {
        (void)snprintf(ret_why, why_size, "TLS for Redis does not start: no memory");
        return -ENOMEM;
    }
    const bool loaded = own ? SSL_CTX_load_verify_file(tls->context, ca_file) == 1
                            : SSL_CTX_set_default_verify_paths(tls->context) == 1;
    ERR_clear_error();
    if (!loaded) {
        (void)snprintf(ret_why, why_size, "the certificates of %s cannot be read%s",
                       own ? ca_file : "the system",
                       own ? ": a PEM file of certificate authorities is wanted" : "");
        return -EINVAL;
    }
    return 0;
}

void redis_tls_close(struct redis_tls *tls)
{
    redis_tls_end(tls);
    SSL_CTX_free(tls->context);
    BIO_meth_free(tls->method);
    *tls = (struct redis_tls){.socket = -1, .why = ""};
}

/* --- a session --- */

int redis_tls_begin(struct redis_tls *tls, int socket, const char *host)
{
    unsigned char address[16];
    const bool is_address =
        inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1;

    redis_tls_end(tls);
    tls->socket = socket;
    tls->ssl = SSL_new(tls->context);
    BIO *bio = tls->ssl == NULL ? NULL : BIO_new(tls->method);
    if (bio == NULL) {
        return -ENOMEM;
    }
    BIO_set_data(bio, tls);
    BIO_set_init(bio, 1);
    SSL_set_bio(tls->ssl, bio, bio);
    SSL_set_hostflags(tls->ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    const bool told = is_address
                          ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(tls->ssl), host) == 1
                          : SSL_set1_host(tls->ssl, host) == 1 &&
                                SSL_set_tlsext_host_name(tls->ssl, host) == 1; /* T1 */
    return told ? 0 : -ENOMEM;
}

/* What a call that did not succeed means. */
static int outcome(struct redis_tls *tls, int result)
{
    const int error = errno;

    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        tls->wants = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        tls->wants = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    case SSL_ERROR_SYSCALL:
        return error != 0 ? -error : -ECONNRESET;
    default:
        break;
    }
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    tls->why = reason != NULL ? reason : "what the server says is not TLS";
    return -EPROTO;
}

/* Before every call: OpenSSL's verdict on one call is read from queues that others leave things
 * in. */
static void clear(struct redis_tls *tls)
{
    tls->wants = 0;
    ERR_clear_error();
    errno = 0;
}

int redis_tls_step(struct redis_tls *tls)
{
    clear(tls);
    const int done = SSL_connect(tls->ssl);
    if (done == 1) {
        return 0;
    }
    const int error = outcome(tls, done);
    const long verdict = SSL_get_verify_result(tls->ssl);
    if (error != -EAGAIN && verdict != X509_V_OK) {
        tls->why = X509_verify_cert_error_string(verdict);
        return -EKEYREJECTED;
    }
    return error == 0 ? -ECONNRESET : error;
}

ssize_t redis_tls_read(struct redis_tls *tls, void *bytes, size_t size)
{
    clear(tls);
    const int got = SSL_read(tls->ssl, bytes, size < INT_MAX ? (int)size : INT_MAX);
    return got > 0 ? got : outcome(tls, got);
}

ssize_t redis_tls_write(struct redis_tls *tls, const void *bytes, size_t size)
{
    clear(tls);
    const int sent = SSL_write(tls->ssl, bytes, size < INT_MAX ? (int)size : INT_MAX);
    if (sent > 0) {
        return sent;
    }
    const int error = outcome(tls, sent);
    return error == 0 ? -ECONNRESET : error;
}

void redis_tls_end(struct redis_tls *tls)
{
    SSL_free(tls->ssl);
    tls->ssl = NULL;
    tls->socket = -1;
}
