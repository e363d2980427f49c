import { memoryStore } from 'attested/attester';
import { attesterStoreContract } from '../contract/attester-store.ts';

attesterStoreContract('memory', { open: () => ({ store: memoryStore(), another: undefined }) });
