/* mongo_code.c - see mongo_code.h. */
#include "persist/mongo_code.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int mongo_code_errno(uint32_t code)
{
    switch (code) {
    case 11000: /* DuplicateKey */
    case 11001: /* the same of an update, before 4.2 */
    case 12582: /* the same through mongos, before 4.2 */
        return -EEXIST;
    case 13:   /* Unauthorized */
    case 18:   /* AuthenticationFailed */
    case 8000: /* AtlasError: no right */
        return -EACCES;
    case 121: /* DocumentValidationFailure */
        return -EBADMSG;
    case 10334: /* BSONObjectTooLarge */
    case 17280: /* KeyTooLong */
    case 17419: /* document after an update is too large */
    case 17420: /* document of an insert is too large */
        return -EMSGSIZE;
    case 59:  /* CommandNotFound */
    case 115: /* CommandNotSupported */
    case 238: /* NotImplemented */
    case 303: /* FeatureNotSupported (gateways) */
        return -ENOTSUP;
    case 1:     /* InternalError: what a gateway says while its database is away */
    case 6:     /* HostUnreachable */
    case 7:     /* HostNotFound */
    case 8:     /* UnknownError */
    case 24:    /* LockTimeout */
    case 43:    /* CursorNotFound: its server was restarted */
    case 46:    /* LockBusy */
    case 50:    /* MaxTimeMSExpired */
    case 64:    /* WriteConcernFailed: its time-out */
    case 89:    /* NetworkTimeout */
    case 91:    /* ShutdownInProgress */
    case 100:   /* UnsatisfiableWriteConcern: too few nodes at the moment */
    case 112:   /* WriteConflict */
    case 117:   /* ConflictingOperationInProgress */
    case 133:   /* FailedToSatisfyReadPreference */
    case 134:   /* ReadConcernMajorityNotAvailableYet */
    case 175:   /* QueryPlanKilled */
    case 189:   /* PrimarySteppedDown */
    case 202:   /* NetworkInterfaceExceededTimeLimit */
    case 237:   /* CursorKilled */
    case 262:   /* ExceededTimeLimit */
    case 9001:  /* SocketException */
    case 10058: /* NotWritablePrimary, before 4.2 */
    case 10107: /* NotWritablePrimary */
    case 11600: /* InterruptedAtShutdown */
    case 11601: /* Interrupted */
    case 11602: /* InterruptedDueToReplStateChange */
    case 13388: /* StaleConfig */
    case 13435: /* NotPrimaryNoSecondaryOk */
    case 13436: /* NotPrimaryOrSecondary */
    case 14031: /* OutOfDiskSpace */
        return -EAGAIN;
    default:
        return -EINVAL;
    }
}

bool mongo_code_says_retry(const bson_t *reply)
{
    bson_iter_t iter;
    bson_iter_t label;

    if (reply == NULL || !bson_iter_init_find(&iter, reply, "errorLabels") ||
        !BSON_ITER_HOLDS_ARRAY(&iter) || !bson_iter_recurse(&iter, &label)) {
        return false;
    }
    while (bson_iter_next(&label)) {
        if (BSON_ITER_HOLDS_UTF8(&label) &&
            strcmp(bson_iter_utf8(&label, NULL), "RetryableWriteError") == 0) {
            return true;
        }
    }
    return false;
}

bson_error_t mongo_code_said(const bson_iter_t *document, uint32_t domain)
{
    bson_error_t error = {.domain = domain};
    bson_iter_t field;

    if (!bson_iter_recurse(document, &field)) {
        return error;
    }
    while (bson_iter_next(&field)) {
        if (BSON_ITER_IS_KEY(&field, "code")) {
            error.code = (uint32_t)bson_iter_as_int64(&field);
        } else if (BSON_ITER_IS_KEY(&field, "errmsg") && BSON_ITER_HOLDS_UTF8(&field)) {
            (void)snprintf(error.message, sizeof(error.message), "%s",
                           bson_iter_utf8(&field, NULL));
        }
    }
    return error;
}
