# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_nomail_agent_global_optspecs
    string join \n config= iface= listen= hostname= responder= refuse-at= after-greeting= xdp-mode= observe= control= syn-rate= syn-burst= log-format= metrics= v/verbose h/help V/version
end

function __fish_nomail_agent_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_nomail_agent_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_nomail_agent_using_subcommand
    set -l cmd (__fish_nomail_agent_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l iface -d 'Interfaces to guard, by name, 1 to 16; "default-route" is the interface of the default route; repeat it, or separate values by commas [default: default-route]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l listen -d 'Where to listen, and exactly what to guard: addresses with a port like 192.0.2.7:25 or [fe80::7%eth0]:25, at most 4 different ports; 0.0.0.0:25 and [::]:25 are wildcards; repeat it, or separate values by commas [default: port 25 of every address of the interfaces]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l hostname -d 'First word of the 521 greeting: a domain name of at most 253 characters, or an address literal like [192.0.2.7] or [IPv6:2001:db8::1] [default: the host\'s FQDN, else an address literal]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l responder -d 'What speaks the refusal: "listener" (sockets of the agent), or "xdp" (the XDP program, without a socket; in the greeting only, not with [relay]) [default: listener]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l refuse-at -d 'Where the refusal is spoken: always in the "greeting", at "ehlo", "mail" or "rcpt"; or "auto": in the greeting on the first contact, at RCPT when the sender returns, from wherever. With [relay] only "rcpt", which is the default then [default: auto]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l after-greeting -d 'What follows a greeting with 521: "hold" (answer 521 to everything except QUIT), or "close". With [relay] only "hold" [default: hold]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l xdp-mode -d 'How XDP attaches: "native" (in the driver), "generic" (in the network stack, slower), "auto" (native, else generic with a warning), or "off" (no guard, the responder alone) [default: auto]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l observe -d 'Count and report every verdict, but drop nothing and answer nothing in XDP [default: false]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l control -d 'Unix socket on which the agent serves its status: an absolute path of at most 107 bytes [default: /run/nomail/control.sock]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l syn-rate -d 'SYNs per second that one source (IPv4 address or IPv6 /64) may send, 1 to 10000 [default: 10]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l syn-burst -d 'SYNs that one source may send at once, 1 to 10000 [default: 20]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l log-format -d 'Format of the log on standard error: "text" for people, or "json", one object a line [default: text]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -l metrics -d 'Where the agent serves its figures by HTTP, /metrics for Prometheus, /healthz, and a page for people at /: an address with a port, or "off" [default: 127.0.0.1:9521]' -r
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -s v -l verbose -d 'Log more: -v for debugging, -vv for everything'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -s V -l version -d 'Print version'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "run" -d 'Guard and refuse; the default command'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "status" -d 'Show what a running agent does'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "top" -d 'Show what a running agent does, live: rates, state, busiest sources'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "check-config" -d 'Validate the configuration and list every error'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "doctor" -d 'Check everything nomail depends on, and print the fix for whatever is wrong'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "detach" -d 'Remove the guard that an agent with on_exit = "keep" has left: XDP programs, counters and pins'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "crowdsec" -d 'Pull the decisions of CrowdSec\'s local API, for the agent to deny'
complete -c nomail-agent -n "__fish_nomail_agent_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l iface -d 'Interfaces to guard, by name, 1 to 16; "default-route" is the interface of the default route; repeat it, or separate values by commas [default: default-route]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l listen -d 'Where to listen, and exactly what to guard: addresses with a port like 192.0.2.7:25 or [fe80::7%eth0]:25, at most 4 different ports; 0.0.0.0:25 and [::]:25 are wildcards; repeat it, or separate values by commas [default: port 25 of every address of the interfaces]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l hostname -d 'First word of the 521 greeting: a domain name of at most 253 characters, or an address literal like [192.0.2.7] or [IPv6:2001:db8::1] [default: the host\'s FQDN, else an address literal]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l responder -d 'What speaks the refusal: "listener" (sockets of the agent), or "xdp" (the XDP program, without a socket; in the greeting only, not with [relay]) [default: listener]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l refuse-at -d 'Where the refusal is spoken: always in the "greeting", at "ehlo", "mail" or "rcpt"; or "auto": in the greeting on the first contact, at RCPT when the sender returns, from wherever. With [relay] only "rcpt", which is the default then [default: auto]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l after-greeting -d 'What follows a greeting with 521: "hold" (answer 521 to everything except QUIT), or "close". With [relay] only "hold" [default: hold]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l xdp-mode -d 'How XDP attaches: "native" (in the driver), "generic" (in the network stack, slower), "auto" (native, else generic with a warning), or "off" (no guard, the responder alone) [default: auto]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l observe -d 'Count and report every verdict, but drop nothing and answer nothing in XDP [default: false]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l control -d 'Unix socket on which the agent serves its status: an absolute path of at most 107 bytes [default: /run/nomail/control.sock]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l syn-rate -d 'SYNs per second that one source (IPv4 address or IPv6 /64) may send, 1 to 10000 [default: 10]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l syn-burst -d 'SYNs that one source may send at once, 1 to 10000 [default: 20]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l log-format -d 'Format of the log on standard error: "text" for people, or "json", one object a line [default: text]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -l metrics -d 'Where the agent serves its figures by HTTP, /metrics for Prometheus, /healthz, and a page for people at /: an address with a port, or "off" [default: 127.0.0.1:9521]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -s v -l verbose -d 'Log more: -v for debugging, -vv for everything'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand run" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand status" -l sources -d 'Most sources to show, the busiest first, 0 to 65536' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand status" -l control -d 'The agent\'s control socket [default: that of the configuration file, else /run/nomail/control.sock]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand status" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand status" -l json -d 'As JSON instead of text'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand status" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -l interval -d 'Seconds between two samples, 0.1 to 3600' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -s n -d 'Frames to print with --batch [default: no end]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -l sources -d 'Most sources in a frame of --batch, 0 to 1000 [default: 20]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -l control -d 'The agent\'s control socket [default: that of the configuration file, else /run/nomail/control.sock]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -s b -l batch -d 'Print frames of plain text, the first after one interval, whose rates it shows'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand top" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l iface -d 'Interfaces to guard, by name, 1 to 16; "default-route" is the interface of the default route; repeat it, or separate values by commas [default: default-route]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l listen -d 'Where to listen, and exactly what to guard: addresses with a port like 192.0.2.7:25 or [fe80::7%eth0]:25, at most 4 different ports; 0.0.0.0:25 and [::]:25 are wildcards; repeat it, or separate values by commas [default: port 25 of every address of the interfaces]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l hostname -d 'First word of the 521 greeting: a domain name of at most 253 characters, or an address literal like [192.0.2.7] or [IPv6:2001:db8::1] [default: the host\'s FQDN, else an address literal]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l responder -d 'What speaks the refusal: "listener" (sockets of the agent), or "xdp" (the XDP program, without a socket; in the greeting only, not with [relay]) [default: listener]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l refuse-at -d 'Where the refusal is spoken: always in the "greeting", at "ehlo", "mail" or "rcpt"; or "auto": in the greeting on the first contact, at RCPT when the sender returns, from wherever. With [relay] only "rcpt", which is the default then [default: auto]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l after-greeting -d 'What follows a greeting with 521: "hold" (answer 521 to everything except QUIT), or "close". With [relay] only "hold" [default: hold]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l xdp-mode -d 'How XDP attaches: "native" (in the driver), "generic" (in the network stack, slower), "auto" (native, else generic with a warning), or "off" (no guard, the responder alone) [default: auto]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l observe -d 'Count and report every verdict, but drop nothing and answer nothing in XDP [default: false]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l control -d 'Unix socket on which the agent serves its status: an absolute path of at most 107 bytes [default: /run/nomail/control.sock]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l syn-rate -d 'SYNs per second that one source (IPv4 address or IPv6 /64) may send, 1 to 10000 [default: 10]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l syn-burst -d 'SYNs that one source may send at once, 1 to 10000 [default: 20]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l log-format -d 'Format of the log on standard error: "text" for people, or "json", one object a line [default: text]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l metrics -d 'Where the agent serves its figures by HTTP, /metrics for Prometheus, /healthz, and a page for people at /: an address with a port, or "off" [default: 127.0.0.1:9521]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -l show -d 'Print the values in effect, and the origin of each, as a file with the same effect'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand check-config" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -l iface -d 'Interface to check; repeat it, or separate names by commas [default: those of the running agent, else of the configuration]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -l domain -d 'A domain without mail: check its MX, null MX and SPF records; repeat it, or separate names by commas' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -l control -d 'The agent\'s control socket [default: that of the configuration file, else /run/nomail/control.sock]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -l json -d 'As JSON instead of text'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -l quiet -d 'Print only what is not ok'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand detach" -l iface -d 'Detach only from this interface' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand detach" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand detach" -l all -d 'Detach from all interfaces, every version [default]'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand detach" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand crowdsec" -l config -d 'Configuration file in TOML [default: /etc/nomail/nomail.toml, if it is there]' -r
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand crowdsec" -s v -l verbose -d 'Log more: -v for debugging, -vv for everything'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand crowdsec" -s h -l help -d 'Print help'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "run" -d 'Guard and refuse; the default command'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "status" -d 'Show what a running agent does'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "top" -d 'Show what a running agent does, live: rates, state, busiest sources'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "check-config" -d 'Validate the configuration and list every error'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "doctor" -d 'Check everything nomail depends on, and print the fix for whatever is wrong'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "detach" -d 'Remove the guard that an agent with on_exit = "keep" has left: XDP programs, counters and pins'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "crowdsec" -d 'Pull the decisions of CrowdSec\'s local API, for the agent to deny'
complete -c nomail-agent -n "__fish_nomail_agent_using_subcommand help; and not __fish_seen_subcommand_from run status top check-config doctor detach crowdsec help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
