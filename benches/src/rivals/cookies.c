// SYN cookies from XDP as the kernel's example xdp_synproxy sends them, without its options and
// its look-up of connections: iptables SYNPROXY takes the acknowledgment.
#include "bpf.h"

#define LENGTH (HEADERS + 4)

SECTION("xdp.frags") int cookies(struct xdp_md *context)
{
	u8 *at = (u8 *)(long)context->data, *end = (u8 *)(long)context->data_end;
	if (flags_of(at, end) != SYN)
		return XDP_PASS;
	int length = at[TCP + 12] >> 4 << 2;
	// Room for the longest header, as the verifier does not follow one of a length of its own.
	if (length < 20 || adjust_tail(context, 60 - length))
		return XDP_DROP;
	at = (u8 *)(long)context->data;
	end = (u8 *)(long)context->data_end;
	if (at + TCP + 60 > end)
		return XDP_DROP;
	long cookie = raw_gen_syncookie_ipv4(at + IP, at + TCP, length);
	if (cookie < 0 || adjust_tail(context, LENGTH - (int)(end - at)))
		return XDP_DROP;
	at = (u8 *)(long)context->data;
	end = (u8 *)(long)context->data_end;
	if (at + LENGTH > end)
		return XDP_DROP;
	u32 acknowledgment = NET32(NET32(LOAD32(at + TCP + 4)) + 1);
	// A window of 0, until SYNPROXY has reached the listener; MSS 1460.
	answer(at, NET32((u32)cookie), acknowledgment, NET32(0x60120000), NET32(0x020405b4));
	return XDP_TX;
}
