/*
 * setup.h - what must be there before load: key, tokens, rooms, connections that have joined.
 *
 * Walk:       from bench/scenario.c; rooms through bench/rest.c, connections through loadgen.c.
 * Threads:    one.
 * Ownership:  owns clients, sockets and the REST connections until setup_end.
 */
#pragma once

#include "bench/loadgen.h"
#include "bench/options.h"
#include "bench/rest.h"
#include "bench/token.h"

struct setup {
    const struct options *options;
    struct token_key key;
    struct clients clients;
    struct loadgen loadgen;
    struct rest rest;
    char room_prefix[48];
};

/* Reserves for the options' connections and rooms, signs a token each, and makes the rooms unless
 * clients do not join any. messages is the most that the run will send. 0, or -errno with the
 * problem written; then nothing is left to end. */
int setup_begin(struct setup *setup, const struct options *options, uint32_t messages,
                char *problem);
void setup_end(struct setup *setup);

/* Makes every client a member of its room by REST, with no connection open. 0 or -errno. */
int setup_members(struct setup *setup, char *problem);

/* The highest seq of a room as its history says. 0, or -errno with the problem written. */
int setup_last_seq(struct setup *setup, uint32_t room, uint64_t *ret_seq, char *problem);

/* Opens all clients and waits until they are live and have got every event of their rooms so far.
 * 0, or -errno with the problem written. */
int setup_connect(struct setup *setup, char *problem);
