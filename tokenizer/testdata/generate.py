"""Trains small tokenizers of the common shapes with Hugging Face tokenizers, and writes what they make of many texts.

    python tokenizer/testdata/generate.py tokenizer/testdata 40 420
"""
import json, random, glob, sys
from tokenizers import Tokenizer, models, trainers, pre_tokenizers, normalizers, decoders, processors, Regex, AddedToken
random.seed(1)
text=[open(f,errors='ignore').read() for f in glob.glob('**/*.go',recursive=True)[:60]]
text+=[l for l in open('../shared/data/wikisql/train.jsonl')][:800]
text+=["Ünïcödé façade naïve 你好世界 こんにちは мир привет 🦊🐢👩‍👩‍👧 ½ ¾ ٣٤ e\u0301 ﬁ ﬂ  \t\n\r\n  x"]*40
LL3=r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QW=LL3.replace(r"\p{N}{1,3}",r"\p{N}")
def bl(**k): return pre_tokenizers.ByteLevel(**k)
def make(name,size):
    sp=["<s>","</s>","<|im_start|>"]
    if name=='gpt2':
        t=Tokenizer(models.BPE()); t.pre_tokenizer=bl(add_prefix_space=False); t.decoder=decoders.ByteLevel()
        t.post_processor=processors.ByteLevel(trim_offsets=True)
    elif name=='smol':
        t=Tokenizer(models.BPE()); t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),bl(add_prefix_space=False)]); t.decoder=decoders.ByteLevel()
    elif name=='llama3':
        t=Tokenizer(models.BPE(ignore_merges=True)); t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(LL3),'isolated'),bl(add_prefix_space=False,use_regex=False)]); t.decoder=decoders.ByteLevel()
    elif name=='qwen':
        t=Tokenizer(models.BPE()); t.normalizer=normalizers.NFC(); t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(QW),'isolated'),bl(add_prefix_space=False,use_regex=False)]); t.decoder=decoders.ByteLevel()
    elif name=='llama2':
        t=Tokenizer(models.BPE(byte_fallback=True,fuse_unk=True,unk_token='<unk>')); sp=["<unk>"]+sp
        t.normalizer=normalizers.Sequence([normalizers.Prepend('▁'),normalizers.Replace(' ','▁')])
        t.decoder=decoders.Sequence([decoders.Replace('▁',' '),decoders.ByteFallback(),decoders.Fuse(),decoders.Strip(' ',1,0)])
    elif name=='meta':
        t=Tokenizer(models.BPE(unk_token='<unk>')); sp=["<unk>"]+sp
        t.pre_tokenizer=pre_tokenizers.Metaspace(replacement='▁',prepend_scheme='first',split=True); t.decoder=decoders.Metaspace(replacement='▁',prepend_scheme='first')
    elif name=='other':
        t=Tokenizer(models.BPE(unk_token='<unk>',fuse_unk=True)); sp=["<unk>"]+sp
        t.normalizer=normalizers.Sequence([normalizers.NFKC(),normalizers.Lowercase(),normalizers.Strip(),normalizers.Replace(Regex(r'[.]{2,}'),'…')])
        t.pre_tokenizer=pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(),pre_tokenizers.Split(Regex(r'[,;]'),'removed'),pre_tokenizers.Split('-','merged_with_next'),pre_tokenizers.Split(Regex(r'[0-9]'),'contiguous'),pre_tokenizers.Split('=','merged_with_previous'),pre_tokenizers.Split(Regex(r'\w+'),'removed',invert=True)])
        t.decoder=decoders.Fuse()
    bytes_alpha=[] if name in('meta','other','llama2') else pre_tokenizers.ByteLevel.alphabet()
    extra=['<0x%02X>'%i for i in range(256)] if name=='llama2' else []
    tr=trainers.BpeTrainer(vocab_size=size,special_tokens=sp+extra,initial_alphabet=bytes_alpha,show_progress=False,limit_alphabet=80)
    t.train_from_iterator(text if name!='llama2' else [x.replace(' ','▁') for x in text],tr)
    j=json.loads(t.to_str())
    if extra: # byte tokens are in the vocab, not added tokens
        j['added_tokens']=[a for a in j['added_tokens'] if not a['content'].startswith('<0x')]
    n=max(max(j['model']['vocab'].values()),max(a['id'] for a in j['added_tokens']))+1
    for k,(c,kw) in enumerate([('<|pad|>',dict(special=True)),('[SEP]',dict(lstrip=True,rstrip=False)),('cat',dict(single_word=True)),('«x»',dict(normalized=True,rstrip=True))]):
        a=dict(id=n+k,content=c,single_word=False,lstrip=False,rstrip=False,normalized=False,special=False); a.update(kw); j['added_tokens'].append(a)
    b='<s>'; bid=j['model']['vocab'].get(b)
    if name in('llama2','llama3','smol'):
        j['post_processor']={"type":"TemplateProcessing","single":[{"SpecialToken":{"id":b,"type_id":0}},{"Sequence":{"id":"A","type_id":0}}]+([{"SpecialToken":{"id":"</s>","type_id":0}}] if name=='smol' else []),"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{b:{"id":b,"ids":[bid],"tokens":[b]},"</s>":{"id":"</s>","ids":[j['model']['vocab']['</s>']],"tokens":["</s>"]}}}
        if name=='llama3': j['post_processor']={"type":"Sequence","processors":[{"type":"ByteLevel","add_prefix_space":True,"trim_offsets":False,"use_regex":True},j['post_processor']]}
    return j
pieces=["the","The cat","cat","concat","cats"," cat ","[SEP]","  [SEP]  ","<|im_start|>","<s>","</s>","<|pad|>","«x»","«x»  y","I'll","they'RE","it'ſ","don't","'","123","1234567","3.14","½","٣٤","你好","こんにちは","мир","🦊","👩‍👩‍👧","e\u0301","é","ﬁ","İ","ß","\u00a0","\u3000","\u200b","\t","\n","\r\n","\n\n"," ","  ","   ","\x00","\x07","\ufeff","▁","▁▁","<0x41>","Ġ","...","..",".","a,b;c","x-y--z","a=b==c","func main() {","}","SELECT * FROM t WHERE a='b'","http://x.y/z?q=1&r=2","aaaaaaaaaaaaaaaa","\u0301","\U0001F1E9\U0001F1EA","ﷺ","Ⅷ","²","a\u0323\u0307"]
def strings(n):
    out=list(pieces)+["",]
    for _ in range(n):
        out.append(''.join(random.choice(pieces)+random.choice(['',' ','','\n','  ']) for _ in range(random.randint(1,7))))
    for _ in range(n//2):
        out.append(''.join(chr(random.choice([random.randint(32,126),random.randint(0xa0,0x24f),random.randint(0x370,0x5ff),random.randint(0x900,0xd7ff),random.randint(0x1f300,0x1faff),random.randint(0,40)])) for _ in range(random.randint(1,20))))
    words=' '.join(text[:3]).split(' ')
    for _ in range(n//2):
        k=random.randint(0,len(words)-20); out.append(' '.join(words[k:k+random.randint(1,15)]))
    return out
out=sys.argv[1]; n=int(sys.argv[2]); size=int(sys.argv[3])
for name in ['gpt2','smol','llama3','qwen','llama2','meta','other']:
    j=make(name,size if name!='llama2' else size+270); t=Tokenizer.from_str(json.dumps(j))
    cases=[]
    for s in strings(n):
        e=t.encode(s,add_special_tokens=True).ids; p=t.encode(s,add_special_tokens=False).ids
        cases.append({"text":s,"ids":e,"plain":len(p)==len(e),"decoded":t.decode(e,skip_special_tokens=True),"all":t.decode(e,skip_special_tokens=False)})
    json.dump(j,open(f'{out}/{name}.json','w'),ensure_ascii=False,separators=(',',':')); json.dump(cases,open(f'{out}/{name}.cases.json','w'),ensure_ascii=True,separators=(',',':'))
    print(name,len(cases))
