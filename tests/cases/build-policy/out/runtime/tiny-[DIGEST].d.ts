export declare const answer: (name: string, destinations: unknown[]) => object;
