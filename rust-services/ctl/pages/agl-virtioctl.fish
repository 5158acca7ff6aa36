# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_agl_virtioctl_global_optspecs
    string join \n bus= json h/help V/version
end

function __fish_agl_virtioctl_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_agl_virtioctl_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_agl_virtioctl_using_subcommand
    set -l cmd (__fish_agl_virtioctl_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -s V -l version -d 'Print version'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "list" -d 'List the guests, a line for each'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "status" -d 'Tell all about one guest, or about every guest'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "start" -d 'Start a guest with its devices; done when it runs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "stop" -d 'Press a guest\'s power button, and wait until it has ended'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "kill" -d 'End a guest at once'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "reboot" -d 'Press a guest\'s reset button'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "pause" -d 'Stop a guest\'s processors'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "resume" -d 'Let a guest\'s processors run on'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "attach" -d 'Put a device into a running guest'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "detach" -d 'Take a device out of a running guest'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "set" -d 'Change a property, such as a volume'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "reload" -d 'Read the guests\' files again and apply the difference'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "define" -d 'Make or change a guest by a file, whose name is the guest\'s'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "remove" -d 'Remove a guest that does not run, and its file'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "show" -d 'Show how a guest is started, or what its file says'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "conformance" -d 'Keep what agl-virtio-selftest --json has written in a running guest, for status to show'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "monitor" -d 'Follow what happens, a line for each change, until interrupted'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "top" -d 'Watch guests and devices with their rates, live; with --json a line for each look'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "report" -d 'Write all that a person who helps from afar would ask for'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "check" -d 'Is this host able to run guests; with files, are they in order'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "completion" -d 'Write the completion for a shell'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "man" -d 'Write the manual pages into a folder'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand list" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand list" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand list" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand status" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand status" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand status" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand start" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand start" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand start" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand stop" -l timeout -d 'End it at once if it still runs after so many seconds' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand stop" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand stop" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand stop" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand kill" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand kill" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand kill" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand reboot" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand reboot" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand reboot" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand pause" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand pause" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand pause" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand resume" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand resume" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand resume" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand attach" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand attach" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand attach" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand detach" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand detach" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand detach" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand set" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand set" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand set" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand reload" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand reload" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand reload" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand define" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand define" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand define" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand remove" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand remove" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand remove" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand show" -l file -d 'Of this file, without asking the manager' -r -F
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand show" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand show" -l command -d 'The monitor\'s command line'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand show" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand show" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand conformance" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand conformance" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand conformance" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand monitor" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand monitor" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand monitor" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand top" -l interval -d 'Look so often, in seconds' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand top" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand top" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand top" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand report" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand report" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand report" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand check" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand check" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand check" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand completion" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand completion" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand completion" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand man" -l bus -d 'Which bus the manager is on: system, session, or an address' -r
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand man" -l json -d 'Write JSON, for programs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand man" -s h -l help -d 'Print help'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "list" -d 'List the guests, a line for each'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "status" -d 'Tell all about one guest, or about every guest'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "start" -d 'Start a guest with its devices; done when it runs'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "stop" -d 'Press a guest\'s power button, and wait until it has ended'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "kill" -d 'End a guest at once'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "reboot" -d 'Press a guest\'s reset button'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "pause" -d 'Stop a guest\'s processors'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "resume" -d 'Let a guest\'s processors run on'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "attach" -d 'Put a device into a running guest'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "detach" -d 'Take a device out of a running guest'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "set" -d 'Change a property, such as a volume'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "reload" -d 'Read the guests\' files again and apply the difference'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "define" -d 'Make or change a guest by a file, whose name is the guest\'s'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "remove" -d 'Remove a guest that does not run, and its file'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "show" -d 'Show how a guest is started, or what its file says'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "conformance" -d 'Keep what agl-virtio-selftest --json has written in a running guest, for status to show'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "monitor" -d 'Follow what happens, a line for each change, until interrupted'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "top" -d 'Watch guests and devices with their rates, live; with --json a line for each look'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "report" -d 'Write all that a person who helps from afar would ask for'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "check" -d 'Is this host able to run guests; with files, are they in order'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "completion" -d 'Write the completion for a shell'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "man" -d 'Write the manual pages into a folder'
complete -c agl-virtioctl -n "__fish_agl_virtioctl_using_subcommand help; and not __fish_seen_subcommand_from list status start stop kill reboot pause resume attach detach set reload define remove show conformance monitor top report check completion man help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
