/*
 * checker.h - what was sent, what came, and whether each member saw every event once and in order.
 *
 * Walk:       from bench/client.c, which finds the frames; numbers go to bench/report.c.
 * Threads:    one; nothing here makes a system call after checker_init.
 * Ownership:  the checker owns rooms, messages and remembered frames; a member is its client's.
 * Units:      sizes in bytes, times in nanoseconds of the caller's one clock.
 *
 * All members of a room get the same frames. The first to get an event has it parsed, checked and
 * remembered with its bytes; for every other member, equal bytes at the expected seq prove the same
 * event in the same place, so a delivery costs one memcmp and one histogram entry. Whatever does
 * not match goes the long way, through checker_event.
 *
 * A message's text carries its sender, its index and its intended time of sending, in hex, and a
 * padding; the parsed text must be the sent one.
 *
 * Invariants: (C1) delivered counts a (message, member) pair once, in the place of its seq.
 *             (C2) an event that a member has not seen is in its missing ranges, or at or after its
 *                  next_seq.
 *             (C3) open is the number of messages of which an ack or a delivery is still due.
 *             (C4) a seq that a member has seen twice counts as duplicated, whatever it carried; so
 *                  does each delivery of a message that the room has under two seqs.
 */
#pragma once

#include "bench/fields.h"
#include "core/histogram.h"

enum {
    CHECKER_TEXT_MIN = 35,        /* sender 8, message 8, intended 16, three separators */
    CHECKER_ROOM_ID_MAX = 64,     /* of the protocol */
    CHECKER_RANGES_MAX = 1 << 18, /* missing ranges of all members */
    CHECKER_NONE = -1,            /* no message */
};

struct checker_counts {
    uint64_t sent;
    uint64_t expected; /* deliveries that the sent messages must make */
    uint64_t delivered;
    uint64_t duplicated;
    uint64_t reordered;
    uint64_t missing; /* events now missing in the middle: skipped, and not come since */
    uint64_t gaps;    /* gap events: the server said that it left something out */
    uint64_t acked;
    uint64_t ack_wrong; /* acked twice, with another seq or another durability than asked for */
    uint64_t refused;   /* sends answered with an error */
    uint64_t foreign;   /* frames that are not JSON, of another room, or text that nobody sent */
};

struct checker_message {
    uint64_t intended_ns;
    uint32_t acked_seq;  /* 0: not acked */
    uint32_t pushed_seq; /* 0: not pushed to anyone yet */
    uint32_t sender;
    uint32_t due; /* deliveries and ack that have not come */
};

/* An event's frame as remembered; bytes are there while at + room's capacity > room's head. */
struct checker_frame {
    uint64_t at; /* position in all bytes that the room ever remembered */
    uint64_t intended_ns;
    uint32_t seq; /* 0: none in this slot */
    uint32_t size;
    int32_t message; /* CHECKER_NONE for an event that is no message */
    bool duplicate;  /* the room has this message under another seq too */
    bool disordered; /* its sender sent a message of a higher seq before */
};

struct checker_room {
    char id[CHECKER_ROOM_ID_MAX + 1];
    uint32_t id_size;
    uint32_t members; /* that will get every message sent from now on */
    uint64_t last_seq;
    uint8_t *bytes;
    struct checker_frame *frames; /* by seq, modulo their number */
    uint64_t head;                /* bytes remembered so far */
};

/* One connection's place in its one room. */
struct checker_member {
    struct checker_room *room;
    uint64_t next_seq; /* 0: not joined */
    uint32_t missing;  /* index + 1 of its first missing range, 0: none */
};

struct checker_range {
    uint32_t first, last, next;
};

struct checker_sender {
    struct slice user_id; /* who its messages must be from */
    uint32_t last_seq;
    int32_t last_message;
};

struct checker {
    struct checker_counts counts;
    struct histogram latency;     /* intended time to delivery */
    struct histogram ack_latency; /* intended time to ack */
    uint64_t open;
    struct slice durability; /* that every ack must name */
    uint32_t text_size;
    uint32_t room_count;
    uint32_t room_bytes;  /* remembered a room; a power of two */
    uint32_t room_frames; /* remembered a room; a power of two */
    uint32_t message_count, message_capacity;
    uint32_t range_free; /* index + 1 of the first free range given back */
    uint32_t range_used;
    uint32_t done_count;
    uint32_t done_capacity; /* 0: completed messages are not listed */
    uint32_t sender_count;
    struct checker_room *rooms;
    struct checker_message *messages;
    struct checker_sender *senders;
    struct checker_range *ranges;
    uint32_t *done; /* messages completed since the caller last set done_count to 0 */
};

struct checker_limits {
    uint32_t rooms, senders, text_size;
    uint32_t messages;  /* in the whole run */
    uint32_t in_flight; /* of a closed loop; 0: open loop, completed messages are not listed */
    struct slice durability;
};

/* Reserves everything. 0, or -ENOMEM. Release with checker_free. */
int checker_init(struct checker *checker, const struct checker_limits *limits);
void checker_free(struct checker *checker);

/* Joined: events from seq + 1 on are due. */
void checker_join(struct checker_member *member, struct checker_room *room, uint64_t seq);

/* Notes a message of the sender to the room before it goes out; returns its index, or CHECKER_NONE
 * if the run has no room for more. */
int32_t checker_send(struct checker *checker, struct checker_room *room, uint32_t sender,
                     uint64_t intended_ns);

/* Writes the message's text, checker->text_size bytes. */
void checker_text(const struct checker *checker, int32_t message, char *dst);

/* Takes whole frames at data as long as they are the bytes that the room remembers for the member's
 * next events; returns the bytes taken, 0 for none. */
size_t checker_match(struct checker *checker, struct checker_member *member, const uint8_t *data,
                     size_t size, uint64_t now_ns);

/* Takes one event by its parsed fields; frame is the whole frame that carried it. */
void checker_event(struct checker *checker, struct checker_member *member, struct slice frame,
                   const struct fields *fields, uint64_t now_ns);

/* The server says that it left out events up to to_seq. */
void checker_gap(struct checker *checker, struct checker_member *member,
                 const struct fields *fields);

/* An ack, or with refused an error, to the message of this index. */
void checker_ack(struct checker *checker, int64_t message, const struct fields *fields,
                 uint64_t now_ns);
void checker_refused(struct checker *checker, int64_t message);

/* Events that the member has not seen, up to the highest seq that anyone saw in its room. */
uint64_t checker_missing(const struct checker *checker, const struct checker_member *member);

/* For one room whose members only send: ret_holes is the seqs between the lowest and the highest
 * acked one that no ack named, ret_twice the acks of a seq that another ack has named. Returns the
 * highest acked seq, or -ENOMEM. */
int checker_ack_density(const struct checker *checker, uint64_t *ret_holes, uint64_t *ret_twice);

/* Messages whose ack named another seq than the push, or that only one of both has reached. Looks
 * at messages from first on; pushes are not looked at if no member of the room listens. */
uint64_t checker_ack_mismatches(const struct checker *checker, uint32_t first, bool pushed);
