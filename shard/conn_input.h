/* conn_input.h - bytes from a client become HTTP requests and WebSocket messages: the receiving
 * half of conn.h. */
#pragma once

#include "shard/conn.h"

#include <stdint.h>

struct config;

/* Size of a large buffer: the largest request or frame and one more receive behind it. */
uint32_t conn_input_bytes_max(const struct config *config);

/* Takes what was received (unmasking it in place), hands every whole request or message to the
 * service and keeps the rest. size 0: looks again at what was kept (conn_resume). */
void conn_input(struct conn *conn, uint8_t *data, uint32_t size);

/* Gives back what input holds; does nothing while conn_input is on the stack, which does it at its
 * end. */
void conn_input_forget(struct conn *conn);
