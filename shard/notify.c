/* notify.c - see notify.h. */
#include "shard/notify.h"

#ifdef DAMSO_SYSTEMD
#include <systemd/sd-daemon.h>

void notify(const char *state)
{
    (void)sd_notify(0, state);
}
#else
void notify(const char *state)
{
    (void)state;
}
#endif
