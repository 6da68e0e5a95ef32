# Generated from the sources of upslot.

complete -c upslot -f
complete -c upslot -s c -l config -r -F -d 'configuration (default: config.yml here, then /etc/upslot/config.yml)'
complete -c upslot -s l -l logfile -r -F -d 'log file (default: standard error)'
complete -c upslot -l check-config -d 'read the configuration, report every error, exit'
complete -c upslot -l demo -d 'run on loopback without XMPP, and print commands to try'
complete -c upslot -s V -l version -d 'print the version'
complete -c upslot -s h -l help -d 'print this help'
complete -c upslot -n __fish_use_subcommand -a explain -d 'show whether a slot would be granted, and why'
complete -c upslot -n __fish_use_subcommand -a list -d 'list the files of an owner, or all owners'
complete -c upslot -n '__fish_seen_subcommand_from list' -l all
complete -c upslot -n __fish_use_subcommand -a remove -d 'delete all files of an owner, or one file'
complete -c upslot -n '__fish_seen_subcommand_from remove' -l dry-run
complete -c upslot -n __fish_use_subcommand -a health -d 'check the running upslot'
complete -c upslot -n __fish_use_subcommand -a help -d 'show this help, that of a command, or all configuration keys'
complete -c upslot -n '__fish_seen_subcommand_from help' -a 'explain list remove health help config'
