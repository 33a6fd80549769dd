/* os_error.c - the words for an error number: apart from os_system.c, so that the simulated system
 * has the same. */
#include "core/os.h"

#include <string.h>

const char *os_error(int error)
{
    const char *text = strerrordesc_np(error < 0 ? -error : error);
    return text != NULL ? text : "unknown error";
}
