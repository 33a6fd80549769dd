/*
 * answer.h - answers what shards ask about rooms and history, and makes rooms.
 *
 * Walk:       from persist.c (a request taken from a lane); to the store, and back by lane.c.
 * Threads:    the persistence thread.
 */
#pragma once

#include "persist/thread.h"

/* Answers one request of size bytes but PERSIST_RECORD. A request is our own shard's: that its
 * sizes add up is CHECKed; what a client may have put into it is answered with -EINVAL. */
void answer_request(struct persist *persist, uint32_t lane, const void *request, uint32_t size);

/* A random name of 12 characters of a-z 0-9 (62 bits), for a room that was given none. */
void answer_room_name(char name[12]);
