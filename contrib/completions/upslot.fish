# Generated from the sources of upslot.

complete -c upslot -f
complete -c upslot -s c -l config -r -F -d 'configuration (default: config.yml here, then /etc/upslot/config.yml)'
complete -c upslot -s l -l logfile -r -F -d 'log file (default: standard error)'
complete -c upslot -l check-config -d 'read the configuration, report every error, exit'
complete -c upslot -l online -d 'also check the object store with a test object, after --check-config'
complete -c upslot -l demo -d 'run on loopback without XMPP, and print commands to try'
complete -c upslot -s V -l version -d 'print the version'
complete -c upslot -s h -l help -d 'print this help'
complete -c upslot -n __fish_use_subcommand -a explain -d 'show whether a slot would be granted, and why'
complete -c upslot -n __fish_use_subcommand -a list -d 'list the files of an owner, or all owners'
complete -c upslot -n '__fish_seen_subcommand_from list' -l all
complete -c upslot -n __fish_use_subcommand -a remove -d 'delete all files of an owner, or one file'
complete -c upslot -n '__fish_seen_subcommand_from remove' -l dry-run
complete -c upslot -n __fish_use_subcommand -a import -d 'take over the files of another program'
complete -c upslot -n '__fish_seen_subcommand_from import' -l dry-run
complete -c upslot -n '__fish_seen_subcommand_from import' -l owner -x
complete -c upslot -n '__fish_seen_subcommand_from import' -l index -r -F
complete -c upslot -n '__fish_seen_subcommand_from import' -a 'prosody-file-share prosody-http-upload metronome ejabberd hmac-file-server prosody-filer share.php django'
complete -c upslot -n '__fish_seen_subcommand_from import' -F
complete -c upslot -n __fish_use_subcommand -a doctor -d 'check the whole way from a client to the store'
complete -c upslot -n '__fish_seen_subcommand_from doctor' -l full
complete -c upslot -n '__fish_seen_subcommand_from doctor' -l json
complete -c upslot -n '__fish_seen_subcommand_from doctor' -l ca-file -r -F
complete -c upslot -n __fish_use_subcommand -a health -d 'check the running upslot'
complete -c upslot -n __fish_use_subcommand -a help -d 'show this help, that of a command, or all configuration keys'
complete -c upslot -n '__fish_seen_subcommand_from help' -a 'explain list remove import doctor health help config'
