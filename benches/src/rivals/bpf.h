// What programs of the kernel's BPF need, without the headers of libbpf.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct xdp_md {
	u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct map {
	u32 type, key_size, value_size, max_entries, flags;
};

#define ARRAY 2
#define PERCPU_ARRAY 6
#define XDP_DROP 1
#define XDP_PASS 2
#define XDP_TX 3

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define MAP(name, kind, value, entries) \
	struct map name SECTION("maps") = { kind, sizeof(u32), sizeof(value), entries, 0 }
#define LOAD(word) (*(volatile u64 *)&(word))
#define LOAD16(at) (*(u16 *)(at))
#define LOAD32(at) (*(u32 *)(at))
#define NET16(number) ((u16)__builtin_bswap16(number))
#define NET32(number) ((u32)__builtin_bswap32(number))

static void *(*lookup)(void *, const void *) = (void *)1;
static long (*adjust_tail)(struct xdp_md *, int) = (void *)65;
static u64 (*jiffies64)(void) = (void *)118;
static long (*raw_gen_syncookie_ipv4)(void *, void *, u32) = (void *)204;

char LICENSE[] SECTION("license") = "GPL";

// Of Ethernet, IPv4 without options, and TCP.
#define IP 14
#define TCP 34
#define HEADERS 54

#define FIN 1
#define SYN 2
#define RST 4
#define ACK 16

// The flags of a whole TCP segment for port 25 by IPv4 without options, or 0.
INLINE u8 flags_of(u8 *at, u8 *end)
{
	if (at + HEADERS > end || LOAD16(at + 12) != NET16(0x0800) || at[IP + 9] != 6)
		return 0;
	if (at[IP] != 0x45 || LOAD16(at + IP + 6) & NET16(0x3fff) || LOAD16(at + TCP + 2) != NET16(25))
		return 0;
	return at[TCP + 13] & (FIN | SYN | RST | ACK);
}

// The complement of the one's complement sum.
INLINE u16 folded(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return ~sum;
}

// Makes a segment its own answer: addresses and ports swapped, these numbers in network order,
// and a word with the length of the header, flags and window. `option` is its option, or 0.
INLINE void answer(u8 *at, u32 sequence, u32 acknowledgment, u32 rest, u32 option)
{
	u32 length = option ? 44 : 40;
	u64 first = *(u64 *)at, middle = LOAD32(at + 8);
	*(u64 *)at = ((first >> 48 | middle << 16) & 0xffffffffffffULL) | first << 48;
	LOAD32(at + 8) = first >> 16;
	u32 peer = LOAD32(at + IP + 12), host = LOAD32(at + IP + 16), ports = LOAD32(at + TCP);
	u64 addresses = (u64)peer + host;
	LOAD32(at + IP) = NET32(0x45000000 | length);
	LOAD32(at + IP + 4) = NET32(0x4000);
	LOAD32(at + IP + 8) = NET32(0x40060000);
	LOAD16(at + IP + 10) = folded(addresses + NET32(0x45000000 | length) + NET32(0x4000) + NET32(0x40060000));
	LOAD32(at + IP + 12) = host;
	LOAD32(at + IP + 16) = peer;
	LOAD32(at + TCP) = ports = ports >> 16 | ports << 16;
	LOAD32(at + TCP + 4) = sequence;
	LOAD32(at + TCP + 8) = acknowledgment;
	LOAD32(at + TCP + 12) = rest;
	LOAD32(at + TCP + 16) = folded(addresses + ports + sequence + acknowledgment + rest + option + NET16(6) + NET16(length - 20));
	if (option)
		LOAD32(at + TCP + 20) = option;
}
