# Generated from the sources of upslot.
# shellcheck shell=bash

_upslot() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' words='' files='' i
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
            -c | --config | -l | --logfile | --index | --ca-file | --owner) ((++i)); [ "${COMP_WORDS[i]}" != = ] || ((++i)) ;;
            -*) ;;
            *) command=${COMP_WORDS[i]}; break ;;
        esac
    done
    case $previous in
        -c | --config | -l | --logfile | --index | --ca-file | =) files=only ;;
        --owner) return ;;
    esac
    case $command in
        '') words="explain list remove import doctor health help" ;;
        explain) words="" ;;
        list) words="--all" ;;
        remove) words="--dry-run" ;;
        import) words="--dry-run --owner --index prosody-file-share prosody-http-upload metronome ejabberd hmac-file-server prosody-filer share.php django" files=yes ;;
        doctor) words="--full --json --ca-file" ;;
        health) words="" ;;
        help) words="explain list remove import doctor health help config" ;;
    esac
    if [ -n "$files" ]; then
        compopt -o filenames 2> /dev/null
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
    [ "$files" != only ] || return 0
    [[ $current != -* ]] || words+=" -c --config -l --logfile --check-config --online --demo -V --version -h --help"
    mapfile -t -O "${#COMPREPLY[@]}" COMPREPLY < <(compgen -W "$words" -- "$current")
}

complete -F _upslot upslot
