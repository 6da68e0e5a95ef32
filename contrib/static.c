/* Linked into static binaries: host names are resolved with /etc/hosts and DNS alone, whatever /etc/nsswitch.conf says.
   Other sources are shared libraries of the system, such as libnss-mdns on Raspberry Pi OS. A static binary can load
   them only if they belong to the very version of glibc that it was built with; otherwise it crashes. */

#include <nss.h>

__attribute__((constructor)) static void resolve_without_modules(void)
{
    __nss_configure_lookup("hosts", "files dns");
}
