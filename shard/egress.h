/*
 * egress.h - output: one send per connection and turn, however many messages.
 *
 * A connection's own replies stand in blocks; events of rooms stay in the rooms' logs. What can go
 * out in one piece goes straight from where it lies; small pieces are gathered in a block first
 * (measured: below 2 KiB one send of a copy is cheaper than two).
 *
 * Rounds. New events of a room are offered to its members in a round. A quiet room's round comes
 * at once. While the shard is busy, rounds of one room are spaced by up to egress.round_max, more
 * the more members it has: one send then carries several events, which is what a send's fixed cost
 * asks for.
 *
 * Walk:       from shard/room_home.c (rooms_durable) and shard/room.c (room_replicate); to the
 *             kernel: the end of a message's way.
 * Threads:    its shard's.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct shard;
struct sub;

/* Begins rounds that are due, then one send for each connection with something to say; a bounded
 * part a turn. Returns whether more is left for the next turn. */
bool egress_run(struct shard *shard);

/* ms until a waiting round is due, or UINT64_MAX. */
uint64_t egress_next_ms(const struct shard *shard);

/* A member has events to read: its connection is looked at this turn. */
void egress_offer(struct sub *sub);

/* Tells a member which events it will not be sent: it fetches them by history. */
void egress_write_gap(struct sub *sub, uint64_t from_seq, uint64_t to_seq);

/* Judges once in a while how busy the shard is and sets the spacing of rounds. */
void egress_judge(struct shard *shard);
