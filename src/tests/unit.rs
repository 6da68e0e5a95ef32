//! The unit of the Debian package: the general unit with the paths of a package, and with the secret in the
//! configuration file, which only the service can read there.

use super::read;

const SOURCE: &str = "contrib/service/upslot.service";

/// What the package's unit has instead of parts of the general one.
const CHANGES: [(&str, &str); 4] = [
    (
        "# systemd unit for upslot. Copy it to /etc/systemd/system/upslot.service; contrib/docs/installation.md has the steps.\n",
        "# systemd unit for upslot, of the Debian package. To change it: systemctl edit upslot\n",
    ),
    (
        "Description=upslot, HTTP File Upload for XMPP\n",
        "Description=upslot, HTTP File Upload for XMPP\n\
         Documentation=man:upslot(1) man:upslot.yml(5)\n",
    ),
    (
        "ExecStart=/usr/local/bin/upslot -c /etc/upslot/config.yml\n",
        "# Until the configuration of the package has been edited, the service is not started.\n\
         ExecCondition=/usr/lib/upslot/is-configured\n\
         ExecStart=/usr/bin/upslot -c /etc/upslot/config.yml\n",
    ),
    (
        "LoadCredential=component_secret:/etc/upslot/component_secret\n",
        "#LoadCredential=component_secret:/etc/upslot/component_secret\n",
    ),
];

pub fn debian() -> String {
    let mut text = read(SOURCE);
    for (from, to) in CHANGES {
        assert_eq!(text.matches(from).count(), 1, "{SOURCE}: {from}");
        text = text.replace(from, to);
    }
    text.replace("contrib/docs/", "/usr/share/doc/upslot/")
}
