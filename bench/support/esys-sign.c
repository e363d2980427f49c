/*
 * What a signature of the TPM costs without us: one key, Esys_Sign in a loop, nothing else.
 *
 * argv: a TCTI. Each line of standard input is a number of signatures; each line of standard output says how many
 * nanoseconds they took. The key is made before and flushed after them, outside of that time, so that between the lines
 * all slots of the TPM are free for others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <tss2/tss2_esys.h>
#include <tss2/tss2_tctildr.h>

static void must(TSS2_RC code, const char *what)
{
	if (code == TSS2_RC_SUCCESS)
		return;
	fprintf(stderr, "%s: 0x%x\n", what, code);
	exit(1);
}

static ESYS_TR make_key(ESYS_CONTEXT *context)
{
	const TPM2B_SENSITIVE_CREATE sensitive = { 0 };
	const TPM2B_DATA outside = { 0 };
	const TPML_PCR_SELECTION pcrs = { 0 };
	const TPM2B_PUBLIC template = {
		.publicArea = {
			.type = TPM2_ALG_ECC,
			.nameAlg = TPM2_ALG_SHA256,
			.objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
				TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA | TPMA_OBJECT_SIGN_ENCRYPT,
			.parameters.eccDetail = {
				.symmetric.algorithm = TPM2_ALG_NULL,
				.scheme = { .scheme = TPM2_ALG_ECDSA, .details.ecdsa.hashAlg = TPM2_ALG_SHA256 },
				.curveID = TPM2_ECC_NIST_P256,
				.kdf.scheme = TPM2_ALG_NULL,
			},
		},
	};
	ESYS_TR key;

	must(Esys_CreatePrimary(context, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive,
				&template, &outside, &pcrs, &key, NULL, NULL, NULL, NULL),
	     "Esys_CreatePrimary");
	return key;
}

static void sign(ESYS_CONTEXT *context, ESYS_TR key)
{
	const TPM2B_DIGEST digest = { .size = 32, .buffer = { 1, 2, 3 } };
	const TPMT_SIG_SCHEME own = { .scheme = TPM2_ALG_NULL };
	const TPMT_TK_HASHCHECK outside = { .tag = TPM2_ST_HASHCHECK, .hierarchy = TPM2_RH_NULL };
	TPMT_SIGNATURE *signature;

	must(Esys_Sign(context, key, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &digest, &own, &outside, &signature),
	     "Esys_Sign");
	Esys_Free(signature);
}

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

int main(int argc, char **argv)
{
	TSS2_TCTI_CONTEXT *tcti = NULL;
	ESYS_CONTEXT *context = NULL;
	char line[32];

	if (argc != 2)
		return 2;
	must(Tss2_TctiLdr_Initialize(argv[1], &tcti), "Tss2_TctiLdr_Initialize");
	must(Esys_Initialize(&context, tcti, NULL), "Esys_Initialize");
	while (fgets(line, sizeof line, stdin)) {
		const ESYS_TR key = make_key(context);
		const long long begin = now();

		for (int left = atoi(line); left > 0; left--)
			sign(context, key);
		printf("%lld\n", now() - begin);
		fflush(stdout);
		must(Esys_FlushContext(context, key), "Esys_FlushContext");
	}
	Esys_Finalize(&context);
	Tss2_TctiLdr_Finalize(&tcti);
	return 0;
}
