// nomail's algorithm in C, for one address, IPv4 alone, without lists, prefixes, reports and
// modes: what the steps themselves cost.
#include "bpf.h"

#define LINES 16384
#define TICKET_LINES 8192
#define SLOTS 4
#define TICKETS 8
// Jiffies that a ticket holds.
#define TICKET_TIME (10 * HZ)
// Parts of a jiffy.
#define UNIT 4096ULL
#define SECOND (UNIT * HZ)
// Of a listener with a queue of 4,096.
#define CAP_RATE 256
#define CAP_BURST 1024
#define HOST NET32(0xc0000201)

struct line {
	u64 keys[SLOTS], buckets[SLOTS];
} __attribute__((aligned(64)));
struct tickets {
	u64 of[TICKETS];
};
struct word {
	u64 value, padding[7];
};
struct counts {
	u64 passed, limited, flood, challenges, proofs;
};

MAP(SOURCES, ARRAY, struct line, LINES);
MAP(PROVEN, ARRAY, struct line, LINES / 4);
// The epoch in which somebody of a line was charged.
MAP(RECENT, ARRAY, u8[LINES], 1);
MAP(TICKET_TABLE, ARRAY, struct tickets, TICKET_LINES);
// The cap, and the jiffies at which the last ticket ends.
MAP(SHARED, ARRAY, struct word, 2);
MAP(COUNTS, PERCPU_ARRAY, struct counts, 1);

volatile const u64 KEY[2] = { 0x0706050403020100ULL, 0x0f0e0d0c0b0a0908ULL };
volatile const u64 SEED = 0x9e3779b97f4a7c15ULL;

#define ROTATED(x, by) ((x) << (by) | (x) >> (64 - (by)))
#define ROUND \
	a += b, b = ROTATED(b, 13) ^ a, a = ROTATED(a, 32), \
	c += d, d = ROTATED(d, 16) ^ c, \
	a += d, d = ROTATED(d, 21) ^ a, \
	c += b, b = ROTATED(b, 17) ^ c, c = ROTATED(c, 32)

// SipHash-2-4 of both addresses and both ports.
INLINE u64 hash_of(u64 addresses, u32 ports)
{
	u64 a = KEY[0] ^ 0x736f6d6570736575ULL, b = KEY[1] ^ 0x646f72616e646f6dULL;
	u64 c = KEY[0] ^ 0x6c7967656e657261ULL, d = KEY[1] ^ 0x7465646279746573ULL;
	u64 last = (u64)ports | 12ULL << 56;
	d ^= addresses, ROUND, ROUND, a ^= addresses;
	d ^= last, ROUND, ROUND, a ^= last;
	c ^= 0xff, ROUND, ROUND, ROUND, ROUND;
	return a ^ b ^ c ^ d;
}

INLINE u64 mixed(u64 hash)
{
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccdULL;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53ULL;
	return hash ^ hash >> 33;
}

INLINE u32 proof_of(u64 hash, u32 slot)
{
	return (u32)mixed(hash ^ (u32)~slot) >> 16;
}

// What a challenge acknowledges: at most 65,535 before the sequence number, with the proof below.
INLINE u32 acknowledgment_of(u64 hash, u32 slot, u32 sequence)
{
	return sequence - ((sequence - proof_of(hash, slot)) & 0xffff);
}

INLINE int is_over(u64 bucket, u64 now, u64 tolerance)
{
	return bucket > now && bucket - now > tolerance;
}

INLINE int charge(u64 *word, u64 now, u64 rate, u64 burst)
{
	u64 bucket = LOAD(*word), tolerance = (burst - 1) * (SECOND / rate);
	if (is_over(bucket, now, tolerance))
		return 1;
	__sync_val_compare_and_swap(word, bucket, (bucket > now ? bucket : now) + SECOND / rate);
	return 0;
}

// Charges a source, which may enter its line if `enters`.
INLINE int charge_line(struct line *line, u64 key, u64 now, int enters)
{
	u64 least = ~0ULL, old = 0;
	u32 at = 0;
#pragma unroll
	for (int slot = 0; slot < SLOTS; slot++) {
		u64 found = LOAD(line->keys[slot]), bucket = LOAD(line->buckets[slot]);
		if (found == key)
			return charge(&line->buckets[slot], now, 10, 20);
		if (bucket < least)
			least = bucket, at = slot, old = found;
	}
	at &= SLOTS - 1;
	if (enters && __sync_val_compare_and_swap(&line->keys[at], old, key) == old)
		LOAD(line->buckets[at]) = now + SECOND / 10;
	return 0;
}

INLINE struct tickets *tickets_of(u64 hash)
{
	u32 index = hash & (TICKET_LINES - 1);
	return lookup(&TICKET_TABLE, &index);
}

// Takes a RST. One that answers a challenge gives a ticket.
INLINE int reset(u64 hash, u32 sequence, u64 jiffies, u32 slot, struct word *last, struct counts *counts)
{
	u32 low = sequence & 0xffff, until = jiffies + TICKET_TIME, least = ~0u, at = 0;
	if (proof_of(hash, slot) != low && proof_of(hash, slot - 1) != low)
		return XDP_PASS;
	struct tickets *line = tickets_of(hash);
	if (!line)
		return XDP_PASS;
#pragma unroll
	for (int i = 0; i < TICKETS; i++) {
		u32 left = (u32)LOAD(line->of[i]) - (u32)jiffies;
		left = left > TICKET_TIME ? 0 : left;
		if (left < least)
			least = left, at = i;
	}
	LOAD(line->of[at & (TICKETS - 1)]) = (u64)((u32)(hash >> 32) ^ sequence) << 32 | until;
	if (LOAD(last->value) != jiffies + TICKET_TIME)
		LOAD(last->value) = jiffies + TICKET_TIME;
	counts->proofs++;
	return XDP_DROP;
}

INLINE int is_proven(u64 hash, u32 sequence, u64 jiffies, u32 slot)
{
	struct tickets *line = tickets_of(hash);
	u32 one = (u32)(hash >> 32) ^ acknowledgment_of(hash, slot, sequence);
	u32 other = (u32)(hash >> 32) ^ acknowledgment_of(hash, slot - 1, sequence);
	int proven = 0;
	if (!line)
		return 0;
#pragma unroll
	for (int i = 0; i < TICKETS; i++) {
		u64 ticket = LOAD(line->of[i]);
		u32 tag = ticket >> 32;
		if ((tag == one || tag == other) && (u32)ticket - (u32)jiffies <= TICKET_TIME)
			proven = 1;
	}
	return proven;
}

SECTION("xdp.frags") int challenges(struct xdp_md *context)
{
	u8 *at = (u8 *)(long)context->data, *end = (u8 *)(long)context->data_end;
	u8 flags = flags_of(at, end);
	u32 first = 0, second = 1;
	if ((flags != SYN && flags != RST) || LOAD32(at + IP + 16) != HOST)
		return XDP_PASS;
	struct word *cap = lookup(&SHARED, &first), *last = lookup(&SHARED, &second);
	struct counts *counts = lookup(&COUNTS, &first);
	u8 *recent = lookup(&RECENT, &first);
	if (!cap || !last || !counts || !recent)
		return XDP_PASS;
	u64 jiffies = jiffies64(), now = jiffies * UNIT, hash = 0;
	u32 slot = jiffies / (16 * HZ), sequence = NET32(LOAD32(at + TCP + 4));
	u64 addresses = *(u64 *)(at + IP + 12);
	u32 ports = LOAD32(at + TCP), source = LOAD32(at + IP + 12);
	int proofs = LOAD(last->value) > jiffies;
	int exhausted = is_over(LOAD(cap->value), now, (CAP_BURST - 1) * (SECOND / CAP_RATE));
	if (flags == RST || proofs || exhausted)
		hash = hash_of(addresses, ports);
	if (flags == RST)
		return reset(hash, sequence, jiffies, slot, last, counts);
	u32 index = mixed(source ^ SEED) >> 50;
	if (proofs && is_proven(hash, sequence, jiffies, slot)) {
		index >>= 2;
		struct line *line = lookup(&PROVEN, &index);
		int over = line && charge_line(line, source, now, 1);
		*(over ? &counts->limited : &counts->passed) += 1;
		return over ? XDP_DROP : XDP_PASS;
	}
	u8 *noted = recent + (index & (LINES - 1)), epoch = jiffies / (2 * HZ);
	if (!exhausted || (u8)(epoch - *noted) < 4) {
		struct line *line = lookup(&SOURCES, &index);
		if (!line)
			return XDP_PASS;
		int over = charge_line(line, source, now, !exhausted);
		*noted = epoch;
		if (!over && !exhausted && !charge(&cap->value, now, CAP_RATE, CAP_BURST)) {
			counts->passed++;
			return XDP_PASS;
		}
		if (!hash)
			hash = hash_of(addresses, ports);
	}
	counts->flood++;
	// Not for a source that no host has, nor for another's hardware address.
	u8 net = source;
	if (end - at > HEADERS + 64 || !net || net == 127 || net >= 224 || source == HOST || at[6] & 1 || at[0] & 1)
		return XDP_DROP;
	u32 acknowledgment = NET32(acknowledgment_of(hash, slot, sequence));
	answer(at, 0, acknowledgment, NET32(0x5012ffff), 0);
	counts->challenges++;
	return XDP_TX;
}
